/** Tables of the core messages, made from Envoy's .proto files by scripts/generate.ts. Full names without leading dot. */
export type ScalarKind =
  | 'double'
  | 'float'
  | 'int32'
  | 'uint32'
  | 'sint32'
  | 'fixed32'
  | 'sfixed32'
  | 'int64'
  | 'uint64'
  | 'sint64'
  | 'fixed64'
  | 'sfixed64'
  | 'bool'
  | 'string'
  | 'bytes';

interface FieldForm {
  readonly repeated?: true;
  /** Set for a map: the kind of its keys. */
  readonly map?: ScalarKind;
  /** The oneof it belongs to. */
  readonly oneof?: string;
}

export type FieldSpec =
  | (FieldForm & { readonly kind: ScalarKind; readonly type?: never })
  | (FieldForm & { readonly kind: 'message' | 'enum'; readonly type: string });

export interface Schema {
  /** Message -> field (its name in the .proto file) -> form. */
  readonly messages: Readonly<Record<string, Readonly<Record<string, FieldSpec>>>>;
  /** Enum -> value name -> number. */
  readonly enums: Readonly<Record<string, Readonly<Record<string, number>>>>;
}
