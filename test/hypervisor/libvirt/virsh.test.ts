/** Against libvirt's own test driver, which needs no daemon and has one domain, `test`. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  domainId,
  domainJob,
  domainState,
  domainXml,
  isActive,
  LibvirtError,
  listDomains,
  parseDomain,
  Virsh,
} from '../../../hypervisor/index.js';

let virsh: Virsh;

beforeEach(() => {
  virsh = new Virsh('test:///default');
});

afterEach(() => virsh[Symbol.asyncDispose]());

describe('virsh, kept running', () => {
  it('answers one command after the other, whoever asks', async () => {
    const answers = await Promise.all([listDomains(virsh), domainState(virsh, 'test'), virsh.run(['uri'])]);
    expect(answers).toEqual([['test'], { state: 'running', reason: expect.any(String) }, 'test:///default']);
  });

  it('answers last what may wait', async () => {
    const answered: string[] = [];
    const ask = async (word: string, isPatient?: boolean) => {
      await virsh.run(['uri'], { isPatient });
      answered.push(word);
    };
    await Promise.all([ask('first'), ask('patient', true), ask('patient too', true), ask('second'), ask('third')]);
    expect(answered).toEqual(['first', 'second', 'third', 'patient', 'patient too']);
  });

  it('tells what libvirt refuses, and goes on', async () => {
    await expect(virsh.run(['domstate', 'nothing'])).rejects.toMatchObject({ code: 'VMMIG_LIBVIRT_NO_DOMAIN' });
    await expect(virsh.run(['no-such-command'])).rejects.toMatchObject({
      code: 'VMMIG_LIBVIRT_COMMAND',
      message: "unknown command: 'no-such-command'",
    });
    expect(await domainState(virsh, 'nothing')).toBeNull();
    expect(await listDomains(virsh)).toEqual(['test']);
  });

  it('takes arguments for what they are', async () => {
    for (const word of ["it's", 'a "b"', 'a; list', '$(reboot)', 'a\\b', 'x'.repeat(3000)])
      await expect(virsh.run(['domstate', word])).rejects.toThrow(`failed to get domain '${word}'`);
  });

  it('gives long answers whole', async () => {
    const { name, disks, memoryBytes } = parseDomain(await domainXml(virsh, 'test'));
    expect({ name, memoryBytes }).toEqual({ name: 'test', memoryBytes: 8 * 2 ** 30 });
    expect(disks.map(({ target, source }) => [target, source?.path])).toEqual([['vda', '/guest/diskimage1']]);
  });

  it('starts anew after an answer that nobody waited for', async () => {
    const signal = AbortSignal.timeout(1);
    await expect(virsh.run(['event', '--all', '--loop'], { timeoutMs: 300 })).rejects.toMatchObject({
      code: 'VMMIG_LIBVIRT_UNREACHABLE',
    });
    await expect(virsh.run(['event', '--all', '--loop'], { signal })).rejects.toBe(signal.reason);
    expect(await listDomains(virsh)).toEqual(['test']);
  });

  it('tells that there is no daemon', async () => {
    await using nowhere = new Virsh('qemu+unix:///system?socket=/nowhere');
    await expect(listDomains(nowhere)).rejects.toMatchObject({ code: 'VMMIG_LIBVIRT_UNREACHABLE' });
  });

  it('is not used after its end', async () => {
    await virsh[Symbol.asyncDispose]();
    await expect(listDomains(virsh)).rejects.toThrow(LibvirtError);
  });
});

describe('A domain', () => {
  it('is active as long as it has a process', async () => {
    expect(isActive(await domainState(virsh, 'test'))).toBe(true);
    await virsh.run(['suspend', 'test']);
    expect(await domainState(virsh, 'test')).toEqual({ state: 'paused', reason: 'user' });
    expect(isActive(await domainState(virsh, 'test'))).toBe(true);
    await virsh.run(['destroy', 'test']);
    expect(isActive(await domainState(virsh, 'test'))).toBe(false);
    expect(isActive(null)).toBe(false);
  });

  it('has a number of its own for each process', async () => {
    const first = await domainId(virsh, 'test');
    expect(first).toMatch(/^\d+$/);
    await virsh.run(['destroy', 'test']);
    expect(await domainId(virsh, 'test')).toBeNull();
    await virsh.run(['start', 'test']);
    expect(await domainId(virsh, 'test')).not.toBe(first);
    expect(await domainId(virsh, 'nothing')).toBeNull();
  });

  it('has no job when libvirt is not busy with it', async () => {
    expect(await domainJob(virsh, 'test').catch((error: LibvirtError) => error.code)).toBeOneOf([
      null,
      'VMMIG_LIBVIRT_COMMAND',
    ]);
  });
});
