import type { LabelSelector } from '@sluice/contract';

/** Whether a label selector means an object with these labels (metav1.LabelSelector: all of it has to hold). */
export function selects(selector: LabelSelector, labels: Readonly<Record<string, string>> = {}): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector;
  if (!Object.entries(matchLabels).every(([key, value]) => labels[key] === value)) return false;
  return matchExpressions.every(({ key, operator, values = [] }) => {
    const found = labels[key];
    switch (operator) {
      case 'In':
        return found !== undefined && values.includes(found);
      // One without the label is none of the values: as in apimachinery's labels.Requirement.
      case 'NotIn':
        return found === undefined || !values.includes(found);
      case 'Exists':
        return found !== undefined;
      default:
        return found === undefined;
    }
  });
}
