/** How the list of error codes is written down: by area, because where the guest is mostly depends on that. */

export interface ErrorHelp {
  /** What happened. */
  readonly summary: string;
  readonly whereIsTheGuest: string;
  readonly nextStep: string;
}

export interface ErrorArea {
  readonly title: string;
  /** For the codes of this area that do not say otherwise. */
  readonly whereIsTheGuest: string;
  readonly codes: Readonly<Record<string, Omit<ErrorHelp, 'whereIsTheGuest'> & Partial<ErrorHelp>>>;
}
