#!/usr/bin/env node
// Starts the bundled command. V8's compiled form of it lies beside it, which saves half of the time that this takes; a
// Node.js of another version rejects that, and compiles the source.
const { readFileSync } = require('node:fs');
const { Module } = require('node:module');
const { join } = require('node:path');
const { Script } = require('node:vm');

// Each read of storage that does not answer keeps one of the threads that all files are read and written by.
process.env.UV_THREADPOOL_SIZE ??= '16';

const filename = join(__dirname, 'command.cjs');
let cachedData;
try {
  cachedData = readFileSync(join(__dirname, 'command.cache'));
} catch {
  // Not compiled yet.
}
const script = new Script(Module.wrap(readFileSync(filename, 'utf8')), { filename, cachedData });
script.runInThisContext()({}, Module.createRequire(filename), { exports: {} }, filename, __dirname);
// For who compiles it.
exports.script = script;
