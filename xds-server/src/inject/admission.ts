import type { V1Pod } from '@kubernetes/client-node';
import { type ErrorCode, SluiceError } from '@sluice/contract';
import type { Injection } from './config.ts';
import { asPod } from './shape.ts';
import { type Injected, inject } from './template.ts';

const API_VERSION = 'admission.k8s.io/v1';
/** The API server cuts a warning that is longer. */
const MAX_WARNING = 256;
const HTTP_STATUS: Partial<Record<ErrorCode, number>> = { POD_ANNOTATION_INVALID: 422 };

/** What of a request is read: admission.k8s.io/v1 AdmissionRequest. */
interface AdmissionRequest {
  readonly uid: string;
  readonly operation?: string;
  readonly resource?: { readonly group?: string; readonly resource?: string };
  readonly subResource?: string;
  readonly object?: V1Pod | null;
}

export interface AdmissionReview {
  readonly apiVersion: string;
  readonly kind: string;
  readonly response: {
    readonly uid: string;
    readonly allowed: boolean;
    readonly status?: { readonly code: number; readonly reason: string; readonly message: string };
    readonly patchType?: 'JSONPatch';
    /** Base64 of the JSON. */
    readonly patch?: string;
    readonly warnings?: readonly string[];
    readonly auditAnnotations?: Readonly<Record<string, string>>;
  };
}

export interface Reviewed {
  readonly review: AdmissionReview;
  readonly result: Injected['type'];
  readonly why?: string | undefined;
}

/**
 * The answer to an AdmissionReview. It has no effect but the answer, so a dry run gets the same.
 * Throws INPUT_INVALID for what is no AdmissionReview of v1 with a request, or whose object has no Pod's form.
 */
export function review(body: unknown, config: Injection): Reviewed {
  const { apiVersion, kind, request } = (body ?? {}) as {
    apiVersion?: unknown;
    kind?: unknown;
    request?: Partial<AdmissionRequest> | null;
  };
  if (apiVersion !== API_VERSION || kind !== 'AdmissionReview') {
    throw new SluiceError(
      'INPUT_INVALID',
      `expected an AdmissionReview of ${API_VERSION}, found ${kind} of ${apiVersion}`,
    );
  }
  const uid = request?.uid;
  if (typeof uid !== 'string') throw new SluiceError('INPUT_INVALID', 'expected request.uid, found none');
  const answer = (response: Omit<AdmissionReview['response'], 'uid'>): AdmissionReview => ({
    apiVersion: API_VERSION,
    kind: 'AdmissionReview',
    response: { uid, ...response },
  });
  const { operation, resource, subResource, object } = request as AdmissionRequest;
  if (operation !== 'CREATE' || resource?.group || resource?.resource !== 'pods' || subResource || !object?.spec) {
    const why = `${operation} of ${resource?.resource}: only Pods that are created get a sidecar`;
    return { review: answer({ allowed: true }), result: 'skipped', why };
  }
  const result = inject(asPod(object, 'request.object'), config);
  if (result.type === 'refused') {
    const { code, message, hint } = result.error;
    const status = HTTP_STATUS[code] ?? 403;
    const reason = status === 422 ? 'Invalid' : 'Forbidden';
    return {
      review: answer({ allowed: false, status: { code: status, reason, message: `${message} (${hint})` } }),
      result: 'refused',
      why: message,
    };
  }
  const warnings = result.warnings.map((text) => text.slice(0, MAX_WARNING));
  const more = { allowed: true, ...(warnings.length > 0 && { warnings }) };
  if (result.type === 'skipped') return { review: answer(more), result: 'skipped', why: result.why };
  const patch = Buffer.from(JSON.stringify(result.patch)).toString('base64');
  const auditAnnotations = { image: config.image };
  return { review: answer({ ...more, patchType: 'JSONPatch', patch, auditAnnotations }), result: 'injected' };
}
