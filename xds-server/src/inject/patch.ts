import type { V1Pod } from '@kubernetes/client-node';

/** RFC 6902; nothing but `add`: injection takes nothing away and changes nothing that was there. */
export interface AddOperation {
  readonly op: 'add';
  readonly path: string;
  readonly value: unknown;
}

/**
 * The patch from one Pod to the same with more in it: annotations, volumes, init containers and containers. A list keeps its items in
 * their order, and each of them is there as it was.
 */
export function additions(before: V1Pod, after: V1Pod): AddOperation[] {
  const [was, is] = [before.metadata?.annotations, after.metadata?.annotations];
  const operations: AddOperation[] = [];
  const add = (path: string, value: unknown) => operations.push({ op: 'add', path, value });
  // An empty key of a YAML file is null.
  if (!before.metadata) add('/metadata', after.metadata);
  else if (!was) add('/metadata/annotations', is);
  else {
    for (const [key, value] of Object.entries(is ?? {})) {
      if (!Object.hasOwn(was, key)) add(`/metadata/annotations/${escaped(key)}`, value);
    }
  }
  for (const field of ['volumes', 'initContainers', 'containers'] as const) {
    const old = before.spec?.[field];
    const now = after.spec?.[field];
    if (now === undefined) continue;
    if (old === undefined) {
      add(`/spec/${field}`, now);
      continue;
    }
    let at = 0;
    for (const [i, item] of now.entries()) {
      if (item === old[at]) at++;
      else add(`/spec/${field}/${i}`, item);
    }
  }
  return operations;
}

/** RFC 6901. */
const escaped = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');
