/**
 * The error catalogue. An error says what was expected, what was found and what to do; its code is stable and documented.
 * Codes are `SLUICE_` + the area + what happened.
 */
export interface ErrorSpec {
  readonly summary: string;
  /** What the reader should do. */
  readonly hint: string;
  /** Exit code of the command, see cli. */
  readonly exit: number;
}

export const CATALOGUE = {
  // Input
  INPUT_INVALID: { summary: 'an input does not have the expected form', hint: 'correct the named field', exit: 2 },
  CONFIG_INVALID: { summary: 'a configuration value is wrong', hint: 'correct the named option', exit: 2 },
  RESOURCE_INVALID: {
    summary: 'a resource file was refused',
    hint: 'correct the file; the last good set is served',
    exit: 2,
  },
  REPORT_INVALID: {
    summary: 'a filter report was refused',
    hint: 'filter and agent must be of the same build',
    exit: 70,
  },
  TOO_LARGE: { summary: 'a message is larger than its bound', hint: 'send less at once', exit: 2 },
  PROTOCOL_UNSUPPORTED: {
    summary: 'agent and controller share no protocol version',
    hint: 'upgrade the older one',
    exit: 70,
  },
  // Who
  PROXY_UNKNOWN: { summary: 'no such proxy', hint: 'see `sluice get`; has its agent connected?', exit: 4 },
  UPGRADE_UNKNOWN: { summary: 'no such upgrade', hint: 'see `sluice get`', exit: 4 },
  ROLLOUT_UNKNOWN: { summary: 'no such rollout', hint: 'see `sluice rollout get`', exit: 4 },
  CONNECTION_UNKNOWN: {
    summary: 'no such connection',
    hint: 'see `sluice connections`; one that ended before the upgrade is not kept',
    exit: 4,
  },
  IDENTITY_REFUSED: { summary: 'the agent could not prove who it is', hint: 'check the token on both sides', exit: 77 },
  SLOT_TAKEN: {
    summary: 'two agents claim one slot',
    hint: 'give each agent of a proxy its own slot and folder',
    exit: 5,
  },
  // Preflight
  PREFLIGHT_BINARY: {
    summary: 'the target Envoy does not run',
    hint: 'check path, permission and architecture',
    exit: 6,
  },
  PREFLIGHT_HOT_RESTART_VERSION: {
    summary: 'the hot restart versions differ',
    hint: 'use another handover method',
    exit: 6,
  },
  PREFLIGHT_HOT_RESTART_OFF: {
    summary: 'hot restart is switched off',
    hint: 'leave the method to `auto`, or switch it on',
    exit: 6,
  },
  PREFLIGHT_METHOD: {
    summary: 'no handover method can do this upgrade',
    hint: 'mend one of the named causes',
    exit: 6,
  },
  PREFLIGHT_LISTENER: {
    summary: 'a listener can not be shared by two Envoys',
    hint: 'use hot restart, or give it an IP address with reuse_port',
    exit: 6,
  },
  PREFLIGHT_OWNER: {
    summary: 'the serving Envoy belongs to another user',
    hint: 'run the agent as the user of the serving Envoy',
    exit: 6,
  },
  PREFLIGHT_ADMIN: {
    summary: 'two Envoys can not share the admin address',
    hint: 'leave the admin out of the bootstrap, then each epoch has a Unix socket of its own; or use hot restart',
    exit: 6,
  },
  PREFLIGHT_STEERING: {
    summary: 'new connections can not be steered to the new epoch',
    hint: 'permit pidfd_getfd on Envoy and SO_ATTACH_REUSEPORT_CBPF, or set net.ipv4.tcp_migrate_req=1',
    exit: 6,
  },
  PREFLIGHT_WIRE: {
    summary: 'the hot restart wire protocol is not known',
    hint: 'upgrade Sluice, or use another method',
    exit: 6,
  },
  PREFLIGHT_BOOTSTRAP: { summary: 'Envoy refuses the bootstrap', hint: 'correct the named field', exit: 6 },
  PREFLIGHT_MEMORY: {
    summary: 'too little memory for a second epoch',
    hint: 'free memory or raise the limit',
    exit: 6,
  },
  PREFLIGHT_CONCURRENCY: {
    summary: 'the new epoch would have another concurrency',
    hint: 'pin the same --concurrency',
    exit: 6,
  },
  PREFLIGHT_SHARED_MEMORY: {
    summary: 'the shared memory is out of reach',
    hint: 'share /dev/shm and the IPC namespace',
    exit: 6,
  },
  PREFLIGHT_NETWORK: {
    summary: 'the agents of the two slots do not share the network',
    hint: 'run both containers in one Pod, or both agents in one network namespace',
    exit: 6,
  },
  PREFLIGHT_SHARED_FOLDER: {
    summary: 'the agents of the two slots do not share their folder',
    hint: 'mount one volume at --shared in both containers',
    exit: 6,
  },
  PREFLIGHT_SOCKET_DIR: { summary: 'the run folder is out of reach', hint: 'check its path and permissions', exit: 6 },
  PREFLIGHT_UDP: {
    summary: 'a UDP listener can not be handed over: one without QUIC, or by a method other than hot restart',
    hint: 'remove it, or restart this proxy',
    exit: 6,
  },
  LISTEN_FD_PEER: {
    summary: 'the other side of a listen-fd transfer is of another user',
    hint: 'run both as the same user, or the new one as root',
    exit: 77,
  },
  LISTEN_FD_BROKEN: {
    summary: 'a transfer of listen sockets was not finished',
    hint: 'see the log of both sides; the one that accepted before accepts still',
    exit: 7,
  },
  PREFLIGHT_POLICY: {
    summary: 'the serving epoch can not be drained as the policy wants',
    hint: 'leave the rule out, or restart this proxy',
    exit: 6,
  },
  // Run
  EPOCH_DIED: { summary: 'an epoch ended before it served', hint: 'see its log', exit: 7 },
  EPOCH_TIMEOUT: {
    summary: 'an epoch did not serve in time',
    hint: 'see its log; is its control plane there?',
    exit: 7,
  },
  LISTENERS_CHANGED: {
    summary: 'the listeners changed while the new epoch started',
    hint: 'start the upgrade again',
    exit: 7,
  },
  UPGRADE_CONFLICT: {
    summary: 'another upgrade of this proxy is under way',
    hint: 'wait for it, or abort it',
    exit: 5,
  },
  ABORTED: { summary: 'the upgrade was given up on request', hint: 'start another one', exit: 5 },
  ROLLOUT_CONFLICT: {
    summary: 'another rollout has the proxy',
    hint: 'wait for it, abort it, or select others',
    exit: 5,
  },
  ROLLOUT_FAILED: { summary: 'the rollout did not reach its target', hint: 'see `sluice rollout get ID`', exit: 7 },
  PHASE_REFUSED: { summary: 'not possible in this phase', hint: 'see `sluice explain`', exit: 5 },
  RESET_PROTECTED: {
    summary: 'protected connections are left',
    hint: 'wait, or give an override with a reason',
    exit: 5,
  },
  GRACE_TOO_SHORT: {
    summary: 'connections were cut because the termination grace was over',
    hint: 'raise terminationGracePeriodSeconds, or let the policy give them up sooner',
    exit: 10,
  },
  RESTART_BUDGET: { summary: 'Envoy crashed too often', hint: 'see its log', exit: 7 },
  CONTROLLER_AWAY: {
    summary: 'the controller can not be reached',
    hint: 'check its address; the agent goes on alone',
    exit: 8,
  },
  KUBE_AWAY: {
    summary: 'the Kubernetes API server can not be reached',
    hint: 'check its address and the network; what runs goes on',
    exit: 8,
  },
  KUBE_REFUSED: {
    summary: 'the Kubernetes API server refused a call',
    hint: 'see its message; has the controller the rights of deploy/rbac?',
    exit: 77,
  },
  POD_ANNOTATION_INVALID: {
    summary: 'an annotation of a Pod has a wrong value',
    hint: 'correct the annotation; docs/injection.md lists them',
    exit: 2,
  },
  POD_FOREIGN_PROXY: {
    summary: 'another injector gave the Pod a proxy already',
    hint: 'let one of the two leave the Pod alone: label it sluice.dev/inject: "false", or opt out of the other one',
    exit: 5,
  },
  POD_NOT_INJECTABLE: {
    summary: 'the Pod can not have a sidecar',
    hint: 'change what is named, or leave the Pod alone: label it sluice.dev/inject: "false"',
    exit: 5,
  },
  METRICS_UNKNOWN: {
    summary: 'the source of metrics gave no answer that a rollout can be judged by',
    hint: 'see its message: address, token, query, and whether the members are scraped; nothing new is begun meanwhile',
    exit: 8,
  },
  STATE_AWAY: {
    summary: 'the state file can not be read or written for now',
    hint: 'is its disk full, or does another process hold it? what runs goes on, each step waits',
    exit: 8,
  },
  STATE_INVALID: {
    summary: 'an object of the stored state can not be read',
    hint: 'use the Sluice that wrote it; one that somebody edited has to be deleted',
    exit: 70,
  },
  PROVIDER_NOT_READY: {
    summary: 'what changes the Pods of a HotUpgrade can not begin yet',
    hint: 'see the conditions of the HotUpgrade; with OpenKruise, is its SidecarSet there?',
    exit: 8,
  },
  NOT_LEADER: {
    summary: 'another replica of the controller leads',
    hint: 'ask that one: the Lease names it',
    exit: 8,
  },
  AGENT_AWAY: { summary: 'the agent of this proxy is not connected', hint: 'check the agent', exit: 8 },
  TIMEOUT: { summary: 'not done within the time given', hint: 'wait longer, or see `sluice explain`', exit: 9 },
  INTERNAL: { summary: 'a fault of Sluice itself', hint: 'please report it with the log', exit: 70 },
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof CATALOGUE;

export class SluiceError extends Error {
  override readonly name = 'SluiceError';
  readonly code: ErrorCode;
  readonly hint: string;

  /** `message`: what was expected and what was found. `hint` replaces the catalogue's where more is known. */
  constructor(code: ErrorCode, message: string, options: { cause?: unknown; hint?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint ?? CATALOGUE[code].hint;
  }

  get exit(): number {
    return CATALOGUE[this.code].exit;
  }

  toJSON(): { code: string; message: string; hint: string } {
    return { code: `SLUICE_${this.code}`, message: this.message, hint: this.hint };
  }
}

/** Any thrown thing as a SluiceError; what is not one already becomes INTERNAL with its cause kept. */
export function toSluiceError(thrown: unknown): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  return new SluiceError('INTERNAL', thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown });
}
