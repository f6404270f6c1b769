export { MemoryFile } from './memoryFile.js';
