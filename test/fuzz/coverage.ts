/** Which parts of the project's code run: V8's block coverage, taken from inside this process. */
import { Session } from 'node:inspector';

interface Script {
  readonly url: string;
  readonly functions: readonly { readonly ranges: readonly Range[] }[];
}

interface Range {
  readonly startOffset: number;
  readonly endOffset: number;
  readonly count: number;
}

export class Coverage implements Disposable {
  readonly #session = new Session();

  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** The blocks that have run since the last call, by script and place. */
  take(): Set<string> {
    const blocks = new Set<string>();
    for (const { url, functions } of this.#take())
      for (const { ranges } of functions)
        for (const { startOffset, endOffset, count } of ranges)
          if (count > 0) blocks.add(`${url} ${startOffset} ${endOffset}`);
    return blocks;
  }

  [Symbol.dispose](): void {
    this.#session.post('Profiler.stopPreciseCoverage');
    this.#session.disconnect();
  }

  #take(): Script[] {
    let scripts: Script[] = [];
    // In one's own process the answer is there when `post` returns.
    this.#session.post('Profiler.takePreciseCoverage', (_error, answer) => {
      scripts = answer?.result ?? [];
    });
    return scripts.filter(({ url }) => url.includes('/') && !/^node:|node_modules|\/test\//.test(url));
  }
}
