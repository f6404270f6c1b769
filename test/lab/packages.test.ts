import { describe, expect, it } from 'vitest';
import { parseDeb822, parseOneLine } from '../../lab/packages.js';

describe('parseDeb822', () => {
  it('reads every enabled binary source with its key', () => {
    const text = `# A comment
Types: deb deb-src
URIs: http://mirror.example/debian http://other.example/debian
# and one inside
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://off.example/
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/
Suites: bookworm
Components: main
`;
    expect(parseDeb822(text)).toEqual([
      {
        uri: 'http://mirror.example/debian',
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main', 'contrib'],
        signedBy: '/usr/share/keyrings/archive.gpg',
      },
    ]);
  });

  it('keeps a key that is embedded in the stanza', () => {
    const key = '\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----';
    const text = `Types: deb\nURIs: http://m.example/\nSuites: s\nComponents: main\nSigned-By:${key}\n`;
    expect(parseDeb822(text)[0]?.signedBy).toBe(key);
  });
});

describe('parseOneLine', () => {
  it('reads sources with and without options', () => {
    const text = `
deb http://mirror.example/debian bookworm main non-free # trailing
deb [arch=amd64 signed-by=/k.gpg] http://signed.example/debian bookworm main
# deb http://off.example/ bookworm main
deb-src http://source.example/ bookworm main
`;
    expect(parseOneLine(text)).toEqual([
      {
        uri: 'http://mirror.example/debian',
        suites: ['bookworm'],
        components: ['main', 'non-free'],
        signedBy: undefined,
      },
      { uri: 'http://signed.example/debian', suites: ['bookworm'], components: ['main'], signedBy: '/k.gpg' },
    ]);
  });
});
