import { describe, expect, it } from 'vitest';
import { VmmigError } from '../../migrate/errors.js';
import { Standstill, untilHandedOver, whatBothSay } from '../../migrate/handOver.js';

const never = new Promise<string>(() => {});
const { signal } = new AbortController();

describe('A guest that is handed over', () => {
  it('is not waited for without end once it stands still', async () => {
    await expect(untilHandedOver(never, () => true, signal, 20)).rejects.toMatchObject({
      code: 'VMMIG_HAND_OVER',
      retryable: true,
    });
  });

  it('is waited for as long as it runs where it was, or gets anywhere', async () => {
    const later = new Promise<string>((resolve) => setTimeout(() => resolve('handed over'), 1_200));
    expect(await untilHandedOver(later, () => false, signal, 1)).toBe('handed over');
  });

  it('is not waited for when that is given up, or when its hand-over fails', async () => {
    const giveUp = new AbortController();
    const waiting = untilHandedOver(never, () => true, giveUp.signal);
    giveUp.abort(new Error('cancelled'));
    await expect(waiting).rejects.toThrow('cancelled');
    await expect(untilHandedOver(never, () => true, giveUp.signal)).rejects.toThrow('cancelled');
    await expect(untilHandedOver(Promise.reject(new Error('refused')), () => true, signal)).rejects.toThrow('refused');
  });
});

describe('What becomes of a hand-over', () => {
  const lost = new VmmigError('VMMIG_LINK_LOST', 'the other relay has hung up');
  const full = new VmmigError('VMMIG_LEDGER_WRITE', 'no space is left');
  const later = (error: Error) => new Promise<never>((_, reject) => setTimeout(() => reject(error), 50));

  it('is told by the side that knows why, whichever is the first to say something', async () => {
    expect(await whatBothSay(Promise.resolve(1), Promise.resolve(2))).toEqual([1, 2]);
    await expect(whatBothSay(later(full), Promise.reject(lost))).rejects.toBe(full);
    await expect(whatBothSay(Promise.reject(lost), later(full))).rejects.toBe(full);
    await expect(whatBothSay(Promise.reject(full), later(lost))).rejects.toBe(full);
    const cut = Object.assign(new Error('QEMU hung up'), { code: 'VMMIG_RELAY_QEMU' });
    const killed = Object.assign(new Error('libvirt: virsh was killed'), { code: 'VMMIG_LIBVIRT_MIGRATE' });
    await expect(whatBothSay(later(killed), Promise.reject(cut))).rejects.toBe(killed);
    await expect(whatBothSay(Promise.reject(lost), later(cut))).rejects.toBe(cut);
  });

  it('is told as it is known when the other side says nothing, or the same', async () => {
    await expect(whatBothSay(never, Promise.reject(lost))).rejects.toBe(lost);
    await expect(whatBothSay(later(lost), Promise.reject(lost))).rejects.toBe(lost);
    await expect(whatBothSay(Promise.resolve(1), Promise.reject(lost))).rejects.toBe(lost);
  });
});

describe('A guest that has been stopped', () => {
  const view = { isStopped: true, bytesOnWire: 1_000_000 };

  it('gets nowhere while no more crosses the network than signs of life', () => {
    const standstill = new Standstill();
    expect(standstill.isStandstill(null)).toBe(false);
    expect(standstill.isStandstill({ ...view, isStopped: false })).toBe(false);
    expect(standstill.isStandstill(view)).toBe(false);
    expect(standstill.isStandstill(view)).toBe(true);
    expect(standstill.isStandstill({ ...view, bytesOnWire: 1_040_000 })).toBe(true);
  });

  it('gets on as long as what it waits for does, however slowly', () => {
    const standstill = new Standstill();
    standstill.isStandstill(view);
    expect(standstill.isStandstill({ ...view, bytesOnWire: 1_100_000 })).toBe(false);
    expect(standstill.isStandstill({ ...view, bytesOnWire: 1_110_000 })).toBe(true);
  });
});
