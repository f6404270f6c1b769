/**
 * Runs the bundled command with the arguments given, and puts down at its end what V8 has compiled for that, with what
 * earlier runs have left.
 */
const { writeFileSync } = require('node:fs');
const { join } = require('node:path');

const directory = join(__dirname, '../dist/bin');
process.once('exit', () => {
  const { script } = require('../dist/bin/vmmig.js');
  writeFileSync(join(directory, 'command.cache'), script.createCachedData());
});
require('../dist/bin/vmmig.js');
