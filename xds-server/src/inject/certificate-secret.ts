import type { V1Secret } from '@kubernetes/client-node';
import type { CertificateState, CertificateStep, CertificateTimes } from './certificates.ts';
import { type Identity, issue, makeAuthority } from './x509.ts';

const AT = 'sluice.dev/';
const TIMES = { publishedAt: `${AT}authority-published-at`, switchedAt: `${AT}authority-switched-at` } as const;

/** What the Secret holds; undefined where it can not be read as that. */
export function readCertificates({ data = {}, metadata }: V1Secret): CertificateState | undefined {
  const text = (key: string) => (data[key] === undefined ? undefined : Buffer.from(data[key], 'base64').toString());
  const identity = (name: string): Identity | undefined => {
    const [certificate, key] = [text(`${name}.crt`), text(`${name}.key`)];
    return certificate === undefined || key === undefined ? undefined : { certificate, key };
  };
  const time = (key: string) => {
    const at = Date.parse(metadata?.annotations?.[key] ?? '');
    return Number.isNaN(at) ? undefined : at;
  };
  const [authority, serving] = [identity('ca'), identity('tls')];
  if (authority === undefined || serving === undefined) return undefined;
  return {
    authority,
    serving,
    next: identity('ca-next'),
    publishedAt: time(TIMES.publishedAt),
    former: text('ca-former.crt'),
    switchedAt: time(TIMES.switchedAt),
  };
}

/** The Secret with that; its resourceVersion is that of `stored`, so that of two writers one is refused. */
export function writeCertificates(
  state: CertificateState,
  place: { readonly namespace: string; readonly name: string },
  stored?: V1Secret,
): V1Secret {
  const data: Record<string, string> = {};
  const put = (key: string, text: string | undefined) => {
    if (text !== undefined) data[key] = Buffer.from(text).toString('base64');
  };
  const identity = (name: string, one: Identity | undefined) => {
    put(`${name}.crt`, one?.certificate);
    put(`${name}.key`, one?.key);
  };
  identity('ca', state.authority);
  identity('tls', state.serving);
  identity('ca-next', state.next);
  put('ca-former.crt', state.former);
  const annotations = { ...stored?.metadata?.annotations };
  for (const field of ['publishedAt', 'switchedAt'] as const) {
    const at = state[field];
    if (at === undefined) delete annotations[TIMES[field]];
    else annotations[TIMES[field]] = new Date(at).toISOString();
  }
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: stored?.type ?? 'Opaque',
    metadata: { ...stored?.metadata, ...place, annotations },
    data,
  };
}

/** Carries a step out. @param names by which API servers call */
export async function nextCertificates(
  step: Exclude<CertificateStep, { type: 'wait' }>,
  state: CertificateState | undefined,
  names: readonly string[],
  now: number,
  times: CertificateTimes,
): Promise<CertificateState> {
  const authority = () => makeAuthority(`sluice ${names[0]}`, { now, days: times.authorityDays });
  const serving = (of: Identity) => issue(of, names, { now, days: times.servingDays });
  if (state === undefined || step.type === 'create') {
    const made = await authority();
    return { authority: made, serving: await serving(made) };
  }
  switch (step.type) {
    case 'renew':
      return { ...state, serving: await serving(state.authority) };
    case 'prepare':
      return { ...state, next: await authority(), publishedAt: undefined };
    case 'published':
      return { ...state, publishedAt: now };
    case 'switch': {
      if (state.next === undefined) return state;
      const { certificate } = state.authority;
      return { authority: state.next, serving: await serving(state.next), former: certificate, switchedAt: now };
    }
    case 'forget':
      return { ...state, former: undefined, switchedAt: undefined };
  }
}
