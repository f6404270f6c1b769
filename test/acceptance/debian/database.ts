/** The debian guest's database: what pgbench was promised must be there, and nothing else. */
import { expect } from 'vitest';
import type { Guest } from '../rig.js';
import { Pgbench } from './clients.js';

const minutes = 60_000;

export class Database {
  constructor(private readonly guest: Guest) {}

  /** Makes the table in which each client of pgbench numbers its transactions. */
  async create(): Promise<void> {
    await this.#sql('create table noted (client int, serial int, primary key (client, serial))');
  }

  async committed(): Promise<number> {
    return Number(await this.#sql('select count(*) from noted'));
  }

  /**
   * Ends pgbench. Each acknowledged transaction is there; and what is there is whole: TPC-B's sums agree, and nothing is
   * torn.
   */
  async expectEverythingCommitted(pgbench: Pgbench): Promise<void> {
    expect(pgbench.isRunning).toBe(true);
    // From the server's side, so that what is on its way may or may not be committed.
    await this.#sql(`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench'`);
    const { acknowledged, said } = await pgbench.ended();
    // Each of them had kept its connection until then.
    expect(said.match(/terminating connection due to administrator command/g), said).toHaveLength(Pgbench.clients);
    expect([...acknowledged.keys()].sort()).toEqual(Array.from({ length: Pgbench.clients }, (_, client) => client));
    const rows = (await this.#sql('select client, min(serial), max(serial), count(*) from noted group by 1')).split(
      '\n',
    );
    expect(rows).toHaveLength(Pgbench.clients);
    for (const row of rows) {
      const [client, first, last, count] = row.split('|').map(Number) as [number, number, number, number];
      expect({ first, count }, `client ${client}`).toEqual({ first: 1, count: last });
      expect(last, `client ${client}`).toBeGreaterThanOrEqual(acknowledged.get(client)!);
      // One transaction may have been committed and not acknowledged.
      expect(last, `client ${client}`).toBeLessThanOrEqual(acknowledged.get(client)! + 1);
    }
    const sums = ['accounts', 'tellers', 'branches'].map((of) => `(select sum(${of[0]}balance) from pgbench_${of})`);
    const [delta, ...balances] = (await this.#sql(`select (select sum(delta) from pgbench_history), ${sums}`)).split(
      '|',
    );
    expect(balances).toEqual([delta, delta, delta]);
    await this.#sql('truncate noted');
  }

  /** Stops the database. Neither in the page cache nor on the disk has it a page with a wrong checksum. */
  async expectSound(): Promise<void> {
    await this.guest.run('pg_ctlcluster 15 main stop', minutes);
    const check = `su postgres -c '/usr/lib/postgresql/15/bin/pg_checksums --check -D /var/lib/postgresql/15/main'`;
    for (const before of ['true', 'echo 3 >/proc/sys/vm/drop_caches'])
      expect(await this.guest.run(`${before}; ${check}`, 2 * minutes)).toMatch(/^Bad checksums:\s+0$/m);
  }

  async #sql(text: string): Promise<string> {
    return await this.guest.run(
      `su postgres -c 'psql -qAtX -v ON_ERROR_STOP=1 lab' <<'END'\n${text}\nEND`,
      2 * minutes,
    );
  }
}
