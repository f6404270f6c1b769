/** What the other relay says for people: it ends up in messages and on terminals, so it is short and plain. */

const maxLength = 1000;

/** @param said - text as it came, or what JSON made of it */
export function peerText(said: unknown): string {
  const text = Buffer.isBuffer(said) ? said.toString('utf8', 0, 4 * maxLength) : said;
  if (typeof text === 'number') return String(text);
  if (typeof text !== 'string') return 'nothing that can be read';
  const plain = text.replace(/\p{C}/gu, '?');
  return plain.length > maxLength ? `${plain.slice(0, maxLength)}…` : plain;
}
