/** What `query-qmp-schema` returns. Source: QEMU, qapi/introspect.json. */

interface Named {
  /** Of commands and events their name, of types an opaque key. */
  readonly name: string;
  readonly features?: readonly string[];
}

interface Member {
  readonly name: string;
  readonly type: string;
  /** Present when the member is optional. */
  readonly default?: unknown;
  readonly features?: readonly string[];
}

export type SchemaInfo = Named &
  (
    | {
        readonly 'meta-type': 'command';
        readonly 'arg-type': string;
        readonly 'ret-type': string;
        readonly 'allow-oob'?: boolean;
      }
    | { readonly 'meta-type': 'event'; readonly 'arg-type': string }
    | {
        readonly 'meta-type': 'object';
        readonly members: readonly Member[];
        readonly tag?: string;
        readonly variants?: readonly { readonly case: string; readonly type: string }[];
      }
    | {
        readonly 'meta-type': 'enum';
        /** From QEMU 6.2 on; `values` is the older form. */
        readonly members?: readonly { readonly name: string }[];
        readonly values?: readonly string[];
      }
    | { readonly 'meta-type': 'array'; readonly 'element-type': string }
    | { readonly 'meta-type': 'alternate'; readonly members: readonly { readonly type: string }[] }
    | { readonly 'meta-type': 'builtin'; readonly 'json-type': string }
  );
