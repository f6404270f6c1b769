/** What the source relay says of the guest's memory before any page: read as hostile. */
import { totalmem } from 'node:os';
import { areSameBlocks, pageBytes } from '../digest.js';
import { RelayError } from '../errors.js';
import type { MemoryFrame } from '../source/memoryFrame.js';
import type { BlocksFrame } from '../source/streamToFrames.js';
import type { CaptureFrame } from '../source/switch/switchFrames.js';

const maxBlocks = 1024;
/**
 * What is noted of each page takes memory before any has come. No guest that is to run here has twice this host's memory;
 * none has more than 4 TiB.
 */
const maxGuestPages = Math.min(2 ** 30, Math.ceil((2 * totalmem()) / pageBytes));
const maxBlockNameBytes = 255;
const maxHeadBytes = 64 * 1024;

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function parseBlocks(payload: Buffer): BlocksFrame {
  const frame = parse(payload) as BlocksFrame;
  if (!isUint32(frame.sectionId) || !areBlocks(frame.blocks)) throw malformed();
  return frame;
}

export interface Capture extends Omit<CaptureFrame, 'head'> {
  readonly head: Buffer;
}

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function parseCapture(payload: Buffer): Capture {
  const { head, section, blocks } = parse(payload) as CaptureFrame;
  const isSound =
    typeof head === 'string' &&
    head.length <= maxHeadBytes &&
    isUint32(section?.id) &&
    isUint32(section.version) &&
    areBlocks(blocks);
  if (!isSound) throw malformed();
  return { head: Buffer.from(head, 'base64'), section, blocks };
}

/** @throws RelayError VMMIG_LINK_PROTOCOL */
export function parseMemory(payload: Buffer): MemoryFrame {
  const { blocks } = parse(payload) as MemoryFrame;
  if (!areBlocks(blocks)) throw malformed();
  return { blocks };
}

/** @throws RelayError VMMIG_LINK_PROTOCOL when another source relay has another guest */
export function requireSameBlocks(blocks: MemoryFrame['blocks'], expected: MemoryFrame['blocks']): void {
  if (!areSameBlocks(blocks, expected))
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'another source relay has another guest');
}

function areBlocks(blocks: MemoryFrame['blocks']): boolean {
  return (
    Array.isArray(blocks) &&
    blocks.length <= maxBlocks &&
    blocks.every(isBlock) &&
    blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) <= maxGuestPages * pageBytes
  );
}

function isBlock(block: MemoryFrame['blocks'][number] | null): boolean {
  if (typeof block !== 'object' || block === null) return false;
  const { name, lengthBytes } = block;
  return (
    typeof name === 'string' &&
    Buffer.byteLength(name) <= maxBlockNameBytes &&
    Number.isSafeInteger(lengthBytes) &&
    lengthBytes >= 0 &&
    lengthBytes % pageBytes === 0
  );
}

function isUint32(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32;
}

function parse(payload: Buffer): object {
  try {
    const value: unknown = JSON.parse(payload.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Told below.
  }
  throw malformed();
}

function malformed(): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent a malformed list of blocks');
}
