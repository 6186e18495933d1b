/** metav1.Condition. */
export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  /** One word in CamelCase. */
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/** A condition as it is found now, before it is known since when. */
export type Finding = Pick<Condition, 'type' | 'status' | 'reason' | 'message'>;

const MAX_MESSAGE = 2_048;

/** The next conditions: one that has its status already keeps its time (apimachinery's `meta.SetStatusCondition`). */
export function nextConditions(
  before: readonly Condition[],
  found: readonly Finding[],
  generation: number,
  now: Date,
): Condition[] {
  const known = new Map(before.map((one) => [one.type, one]));
  return found.map(({ type, status, reason, message }) => {
    const old = known.get(type);
    return {
      type,
      status,
      reason,
      message: message.slice(0, MAX_MESSAGE),
      // metav1.Time has whole seconds.
      lastTransitionTime: old?.status === status ? old.lastTransitionTime : `${now.toISOString().slice(0, 19)}Z`,
      observedGeneration: generation,
    };
  });
}
