import { createHash } from 'node:crypto';
import type { KubernetesObject } from '@kubernetes/client-node';
import { EVENTS, isReason, type KubeClient } from './client.ts';

const MAX_NOTE = 1024;
const INSTANCE = 128;

export interface Happening {
  readonly type: 'Normal' | 'Warning';
  /** One word in CamelCase, such as `Upgrading`. */
  readonly reason: string;
  /** What was done, one word such as `Patch`. */
  readonly action: string;
  readonly note: string;
}

/**
 * An event on an object. The same one again, of the same object, is the same event: its series counts, nothing piles up. So is one
 * that a leader told and its successor tells again.
 */
export async function tell(
  client: KubeClient,
  about: KubernetesObject,
  happening: Happening,
  instance: string,
  now: Date = new Date(),
): Promise<void> {
  const { namespace = 'default', name = '', uid, resourceVersion } = about.metadata ?? {};
  const note = happening.note.slice(0, MAX_NOTE);
  const what = createHash('sha256').update(`${uid}/${happening.reason}/${note}`).digest('hex').slice(0, 16);
  const time = now.toISOString().replace('Z', '000Z');
  const event = {
    apiVersion: EVENTS.apiVersion,
    kind: EVENTS.kind,
    metadata: { namespace, name: `${name.slice(0, 200)}.${what}` },
    eventTime: time,
    reportingController: 'sluice.dev/controller',
    reportingInstance: instance.slice(0, INSTANCE),
    regarding: { apiVersion: about.apiVersion, kind: about.kind, namespace, name, uid, resourceVersion },
    ...happening,
    note,
  };
  try {
    await client.create(EVENTS, event);
  } catch (error) {
    if (!isReason(error, 'AlreadyExists')) throw error;
    // Our rights do not reach to reading events: the count is of this telling, the time is what matters.
    const series = { series: { count: 2, lastObservedTime: time } };
    await client.patch(EVENTS, { namespace, name: event.metadata.name }, 'merge', series);
  }
}
