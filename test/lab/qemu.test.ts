import { execa } from 'execa';
import { describe, expect, it } from 'vitest';
import { qemuBinary } from '../../lab/qemu.js';

describe('qemuBinary', () => {
  it('starts the system QEMU for 7.2', async () => {
    const { command, args, env } = await qemuBinary('7.2');
    const { stdout } = await execa(command, [...args, '--version'], { env });
    expect(stdout).toMatch(/QEMU emulator version \d/);
  });

  it('starts an unpacked 10.0 whose command alone finds firmware and modules', async () => {
    const { command } = await qemuBinary('10.0');
    expect((await execa(command, ['--version'])).stdout).toContain('version 10.0');
    const { stdout } = await execa(command, ['-L', 'help']);
    expect(stdout.split('\n')[0]).toMatch(/qemu-10\.0\/usr\/share\/qemu$/);
    // A device whose code is in a module of its own: an older module would be refused.
    const help = await execa(command, ['-device', 'virtio-gpu-pci,help'], { reject: false });
    expect(help.stdout).toContain('virtio-gpu-pci options');
  });
});
