/** What is known of a running migration, folded from its events. No output here. */
import type { NoticeEvent, ProgressEvent, SampleEvent, StartEvent } from '../../migrate/progress.js';
import type { MigrationReport, PhaseName } from '../../migrate/report.js';

export interface PhaseState {
  readonly name: PhaseName;
  readonly beganMs: number;
  readonly endedMs: number | null;
  readonly detail: string | null;
}

export interface ProgressState {
  readonly start: StartEvent | null;
  /** In the order in which they began. */
  readonly phases: readonly PhaseState[];
  readonly sample: SampleEvent | null;
  readonly notices: readonly NoticeEvent[];
  readonly report: MigrationReport | null;
}

export const initialState: ProgressState = { start: null, phases: [], sample: null, notices: [], report: null };

/** More notices than a screen can show are kept by the report, not here. */
const noticesKept = 20;

export function advance(state: ProgressState, event: ProgressEvent): ProgressState {
  switch (event.type) {
    case 'start':
      // A teleport may go on as a switch.
      return { ...initialState, notices: state.notices, start: event };
    case 'located':
      return { ...state, start: state.start && { ...state.start, from: event.from } };
    case 'sample':
      return { ...state, sample: event };
    case 'notice':
      return { ...state, notices: [...state.notices, event].slice(-noticesKept) };
    case 'end':
      return { ...state, report: event.report };
    case 'phase': {
      const known = state.phases.find((phase) => phase.name === event.name && phase.endedMs === null);
      const phase: PhaseState = {
        name: event.name,
        beganMs: known?.beganMs ?? event.atMs,
        endedMs: event.state === 'end' ? event.atMs : null,
        detail: event.detail ?? known?.detail ?? null,
      };
      const phases = known ? state.phases.map((other) => (other === known ? phase : other)) : [...state.phases, phase];
      return { ...state, phases };
    }
  }
}

/** The phase to show: the one that began last and has not ended. */
export function currentPhase(state: ProgressState): PhaseState | null {
  return state.phases.findLast((phase) => phase.endedMs === null) ?? null;
}
