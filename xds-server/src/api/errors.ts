import { CATALOGUE, type ErrorCode, SluiceError } from '@sluice/contract';

/** HTTP status of a catalogue code; what is not named is 500. */
const STATUS: Partial<Record<ErrorCode, number>> = {
  INPUT_INVALID: 400,
  CONFIG_INVALID: 400,
  RESOURCE_INVALID: 400,
  TOO_LARGE: 413,
  PROXY_UNKNOWN: 404,
  UPGRADE_UNKNOWN: 404,
  ROLLOUT_UNKNOWN: 404,
  IDENTITY_REFUSED: 401,
  SLOT_TAKEN: 409,
  UPGRADE_CONFLICT: 409,
  ROLLOUT_CONFLICT: 409,
  PHASE_REFUSED: 409,
  RESET_PROTECTED: 409,
  ABORTED: 409,
  AGENT_AWAY: 503,
  CONTROLLER_AWAY: 503,
  KUBE_AWAY: 503,
  STATE_AWAY: 503,
  TIMEOUT: 504,
};

export function statusOf(error: SluiceError): number {
  return STATUS[error.code] ?? 500;
}

/** Any thrown thing, fastify's own errors included, as one of the catalogue. */
export function apiError(thrown: unknown): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const { statusCode, message } = thrown as { statusCode?: number; message?: string };
  if (statusCode === 413) return new SluiceError('TOO_LARGE', message ?? CATALOGUE.TOO_LARGE.summary);
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new SluiceError('INPUT_INVALID', message ?? CATALOGUE.INPUT_INVALID.summary);
  }
  return new SluiceError('INTERNAL', message ?? String(thrown), { cause: thrown });
}
