import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { TunnelEntrance } from '../../../host-service/guest/libvirtTunnel.js';
import { VirshGuard } from '../../../host-service/guest/virshGuard.js';
import { acceptConnection } from '../../../relay/link/connection.js';
import { host, newCredentials } from '../../relay/peers.js';

test('virsh is hung up on also where a guard shares its connection', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'vmmig-tunnel-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const credentials = newCredentials();
  const destination = createServer((socket) => void acceptConnection(socket, credentials, 10_000)).listen(0, host);
  onTestFinished(() => void destination.close());
  await once(destination, 'listening');
  const { port } = destination.address() as AddressInfo;

  const path = join(directory, 'libvirt');
  let tellGuard: (guard: Promise<VirshGuard | null>) => void = () => {};
  const address = { uri: 'test:///default', domain: 'vm1' };
  const guarded = { heldPath: join(directory, 'held'), address, isInFiles: false };
  const started = new Promise<VirshGuard | null>((resolve) => {
    tellGuard = resolve;
  });
  await using entrance = await TunnelEntrance.open(
    path,
    { endpoint: { host, port }, credentials, opensAsUsual: false, switching: { isInFiles: false } },
    (client) => tellGuard(VirshGuard.start(guarded, process.pid, client)),
  );
  const virsh = createConnection(path);
  using guard = await started;
  expect(guard).not.toBeNull();
  const hungUp = once(virsh.resume(), 'end');
  entrance.cut();
  await hungUp;
});
