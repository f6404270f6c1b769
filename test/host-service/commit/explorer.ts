/** Visits every world that can be reached, and looks at each. */
import { stepsFrom } from './steps.js';
import {
  type Command,
  type Destination,
  firstWorld,
  type Machines,
  type Mode,
  type Source,
  type World,
} from './world.js';

export interface Violation {
  readonly what: string;
  /** The steps that lead there. */
  readonly path: readonly string[];
}

export interface Exploration {
  readonly worlds: number;
  /** The one that takes the fewest failures. */
  readonly violation: Violation | null;
}

export interface Bounds {
  readonly recoveries: 0 | 1 | 2;
  /** How many things may go wrong, at any step each. Everything else happens in any order, or never. */
  readonly failures: number;
}

interface Visit {
  readonly world: World;
  readonly label: string;
  readonly from: Visit | null;
}

/**
 * All worlds with no failure, then those with one, and so on. Stops at the first violation.
 * @param onRest - is shown the worlds in which only a failure could change anything
 */
export function explore(
  mode: Mode,
  machines: Machines,
  bounds: Bounds,
  check: (world: World) => string | null,
  onRest: (world: World) => void = () => {},
): Exploration {
  const seen = new Set<string>();
  const first = firstWorld(mode);
  let later = new Map<string, Visit>([[keyOf(first), { world: first, label: '', from: null }]]);
  for (let failures = 0; failures <= bounds.failures; failures++) {
    const queue = [...later].filter(([key]) => !seen.has(key)).map(([, visit]) => visit);
    for (const key of later.keys()) seen.add(key);
    later = new Map();
    for (let visit = queue.pop(); visit !== undefined; visit = queue.pop()) {
      const what = check(visit.world);
      if (what !== null) return { worlds: seen.size, violation: { what, path: pathTo(visit) } };
      const steps = stepsFrom(visit.world, machines, bounds.recoveries);
      if (steps.every(({ fails }) => fails)) onRest(visit.world);
      for (const { world, label, fails } of steps) {
        if (fails && failures === bounds.failures) continue;
        const key = keyOf(world);
        if (seen.has(key)) continue;
        if (!fails) {
          seen.add(key);
          queue.push({ world, label, from: visit });
        } else if (!later.has(key)) later.set(key, { world, label, from: visit });
      }
    }
  }
  return { worlds: seen.size, violation: null };
}

function pathTo(visit: Visit): string[] {
  return visit.from === null ? [] : [...pathTo(visit.from), visit.label];
}

/** Two recoveries are alike: which of them is which makes no other world. */
function keyOf({ source, destination, link, commands, goSent, ran, wrong }: World): string {
  const [command, first, second] = commands.map(commandKey);
  const recoveries = first! < second! ? `${first}|${second}` : `${second}|${first}`;
  return `${sourceKey(source)}|${destinationKey(destination)}|${link}|${command}|${recoveries}|${goSent}${ran}${wrong}`;
}

/** Most steps leave most of a world as it is, so the keys of its parts are kept. */
function kept<Part extends object>(keyOfPart: (part: Part) => string): (part: Part) => string {
  const keys = new WeakMap<Part, string>();
  return (part) => {
    const found = keys.get(part);
    if (found !== undefined) return found;
    const key = keyOfPart(part);
    keys.set(part, key);
    return key;
  };
}

const commandKey = kept(({ state, sent, rivals, triggered }: Command) => `${state} ${sent} ${rivals} ${triggered}`);
const sourceKey = kept(({ service, todo, decision, guest }: Source) => `${service} ${todo} ${decision} ${guest}`);
const destinationKey = kept(
  ({ service, todo, decision, guest, guarded, remembers, died }: Destination) =>
    `${service} ${todo} ${decision} ${guest} ${guarded} ${remembers} ${died}`,
);
