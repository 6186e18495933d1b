import type { KubernetesObject } from '@kubernetes/client-node';
import { SluiceError } from '@sluice/contract';
import { type Kind, type KubeClient, KubeError, type ListPage, type Place, type Selection } from '../kube/client.ts';

/** What happens to a call: nobody answers before it is done, or after; undefined: all is well. */
export type Trouble = (verb: string, kind: string) => 'before' | 'after' | undefined;

/** An API server of a few kinds in memory, as far as the store asks it: versions, names that are taken, lost answers. No watches. */
export class FakeKube {
  readonly objects = new Map<string, KubernetesObject>();
  trouble: Trouble = () => undefined;
  #version = 0;

  get client(): KubeClient {
    return this as unknown as KubeClient;
  }

  async get(kind: Kind, { name }: Place): Promise<KubernetesObject> {
    return this.#call('get', kind, () => structuredClone(this.#find(kind, name)));
  }

  async list(kind: Kind, _: Place, { labels }: Selection = {}): Promise<ListPage<KubernetesObject>> {
    const [key = '', value] = labels?.split('=') ?? [];
    const items = [...this.objects]
      .filter(([path]) => path.startsWith(`${kind.plural}/`))
      .map(([, object]) => object)
      .filter(({ metadata }) => labels === undefined || metadata?.labels?.[key] === value);
    return this.#call('list', kind, () => ({ items: structuredClone(items), resourceVersion: String(this.#version) }));
  }

  async create(kind: Kind, object: KubernetesObject): Promise<KubernetesObject> {
    return this.#call('create', kind, () => {
      const name = object.metadata?.name;
      if (this.objects.has(`${kind.plural}/${name}`)) throw new KubeError(409, 'AlreadyExists', `${name} is there`);
      return this.#put(kind, object, `uid-${++this.#version}`);
    });
  }

  async replace(kind: Kind, object: KubernetesObject): Promise<KubernetesObject> {
    return this.#call('update', kind, () => {
      const old = this.#find(kind, object.metadata?.name);
      const { resourceVersion, uid } = object.metadata ?? {};
      if (old.metadata?.resourceVersion !== resourceVersion || (uid !== undefined && uid !== old.metadata?.uid))
        throw new KubeError(409, 'Conflict', 'the object has been modified');
      return this.#put(kind, object, old.metadata?.uid as string);
    });
  }

  /** DELETE, with what the object owns, or a list. */
  async json(method: string, path: string): Promise<unknown> {
    const [plural = '', name] = (path.split('?')[0] as string).split('/').slice(6);
    return this.#call(method.toLowerCase(), { plural }, () => {
      if (method !== 'DELETE') return { items: [] };
      const { metadata } = this.#find({ plural }, name);
      this.objects.delete(`${plural}/${name}`);
      for (const [key, one] of this.objects)
        if (one.metadata?.ownerReferences?.some(({ uid }) => uid === metadata?.uid)) this.objects.delete(key);
      return {};
    });
  }

  #find({ plural }: Pick<Kind, 'plural'>, name: string | undefined): KubernetesObject {
    const found = this.objects.get(`${plural}/${name}`);
    if (found === undefined) throw new KubeError(404, 'NotFound', `${plural} "${name}" not found`);
    return found;
  }

  #put({ plural }: Kind, object: KubernetesObject, uid: string): KubernetesObject {
    const metadata = { ...object.metadata, uid, resourceVersion: String(++this.#version) };
    const stored = structuredClone({ ...object, metadata });
    this.objects.set(`${plural}/${metadata.name}`, stored);
    return structuredClone(stored);
  }

  async #call<T>(verb: string, { plural }: Pick<Kind, 'plural'>, work: () => T): Promise<T> {
    await Promise.resolve();
    const trouble = this.trouble(verb, plural);
    if (trouble === 'before') throw new SluiceError('KUBE_AWAY', `${verb} ${plural}: refused`);
    const answer = work();
    if (trouble === 'after') throw new SluiceError('KUBE_AWAY', `${verb} ${plural}: the answer was lost`);
    return answer;
  }
}
