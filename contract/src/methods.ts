/**
 * The ways in which a new epoch takes over from the one that serves. `listen-fd` is for proxies that are not Envoy.
 */
export const METHOD_NAMES = ['hot-restart', 'reuse-port', 'listen-fd'] as const;

export type MethodName = (typeof METHOD_NAMES)[number];

/** What a user may ask for; `auto` leaves the choice to the preflight. */
export type MethodWish = MethodName | 'auto';

export const METHOD_WISHES = ['auto', ...METHOD_NAMES] as const satisfies readonly MethodWish[];

/** One line of each for a person. */
export const METHODS: Readonly<Record<MethodName, string>> = {
  'hot-restart': "Envoy's hot restart through the broker: the new epoch gets the listen sockets themselves",
  'reuse-port': 'two Envoys on the same SO_REUSEPORT addresses: new connections are steered to the new epoch',
  'listen-fd': 'listen sockets passed over a Unix socket to a proxy that inherits them',
};

export function isMethodWish(value: unknown): value is MethodWish {
  return METHOD_WISHES.includes(value as MethodWish);
}
