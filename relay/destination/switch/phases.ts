/** How far a switch has come at its destination. */
export interface SwitchPhases {
  /** The source has let go of the guest. */
  hasSwitched: boolean;
  /** QEMU is loading the device state: the guest stands still until it has. */
  isLoading: boolean;
}
