/** How far a switch has come at its source. What has come about stays so. */
export interface SwitchPhases {
  /** QEMU may stop the guest at any time: little is to queue before what that then waits for. */
  mayStop: boolean;
  /** QEMU says that the guest has stopped; it says so before its stream does. */
  hasStopped: boolean;
  /** All of the stream's memory is here: the guest stands still. */
  ramEnded: boolean;
  /** The destination has the permission to run the guest. */
  hasGone: boolean;
  /** The guest runs there. */
  isRunning: boolean;
}

export function newPhases(): SwitchPhases {
  return { mayStop: false, hasStopped: false, ramEnded: false, hasGone: false, isRunning: false };
}
