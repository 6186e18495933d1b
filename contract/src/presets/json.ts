/** Plain JSON as Envoy reads it. The presets never change what they are given: they copy what they touch. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}
/** An object being built. */
export type Draft = Record<string, Json | undefined>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function camel(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/**
 * A shallow copy in which the named fields are spelled in snake_case: Envoy's JSON takes both spellings. Where both are
 * there Envoy itself refuses the message, so the camelCase one is left in place for Envoy to name.
 */
export function normalised(value: Json | undefined, ...fields: readonly string[]): Draft {
  const copy: Draft = isObject(value) ? { ...value } : {};
  for (const field of fields) {
    const other = camel(field);
    if (other === field || copy[other] === undefined || copy[field] !== undefined) continue;
    copy[field] = copy[other];
    delete copy[other];
  }
  return copy;
}

export function list(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? value : [];
}

/** The named field of an object, in either spelling. */
export function field(value: Json | undefined, name: string): Json | undefined {
  return isObject(value) ? (value[name] ?? value[camel(name)]) : undefined;
}

export function text(value: Json | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

export function sameJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((x, i) => sameJson(x, b[i]));
  if (!isObject(a) || !isObject(b)) return false;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].every((key) => sameJson(a[key], b[key]));
}
