import { field, isObject, type Json, objects, type PresetEnvironment, withField } from './environment.ts';

/**
 * A name of our own: triggers go by it, so a user's injected_resource monitor and what it triggers stay as they are, and a
 * drain sets off nothing but its own action. Envoy picks the implementation by typed_config (1.36 to 1.40).
 */
export const PRESSURE_MONITOR = 'sluice.pressure';
const ACTION = 'envoy.overload_actions.reduce_timeouts';
const TIMER = 'HTTP_DOWNSTREAM_CONNECTION_MAX';
/** TIMER's number in ScaleTimersOverloadActionConfig.TimerType: JSON may carry either. */
const TIMER_NUMBER = 4;

const REFRESH_S = 0.05;

/** `scaled`: the pressure between 0.1 and 1.0 is an age cut-off (envoy-facts, the lever to build on). */
const TRIGGER = { name: PRESSURE_MONITOR, scaled: { scaling_threshold: 0.1, saturation_threshold: 1.0 } };
const FACTOR = { timer: TIMER, min_timeout: '0.001s' };

/** The overload manager that turns the epoch's pressure file into "leave" for the connections older than a cut-off. */
export function withPressure(bootstrap: Json, environment: PresetEnvironment, warnings: string[]): Json {
  const found = field(bootstrap, 'overload_manager');
  const manager = isObject(found) ? found : {};
  const monitors = objects(field(manager, 'resource_monitors'));
  const monitor = {
    name: PRESSURE_MONITOR,
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig',
      filename: environment.pressureFile,
    },
  };
  const { resourceMonitors: _monitors, refreshInterval: _interval, ...rest } = manager;
  return withField(bootstrap, 'overload_manager', {
    ...rest,
    // Envoy's default is 1 s; a drain order shall be felt at once, and a paced one moves its cut-off every 100 ms, each of
    // which a look of Envoy has to fall into. A user's own interval is kept when it is shorter.
    refresh_interval: shorter(field(manager, 'refresh_interval')),
    resource_monitors: [...monitors.filter((m) => m.name !== PRESSURE_MONITOR), monitor],
    actions: withAction(objects(manager.actions), warnings),
  });
}

/** Envoy takes one action of a name, so a user's reduce_timeouts and ours are one: triggers and timers joined. */
function withAction(actions: Json[], warnings: string[]): Json[] {
  const existing = actions.find((a) => a.name === ACTION);
  const config = existing && field(existing, 'typed_config');
  const factors = isObject(config) ? objects(field(config, 'timer_scale_factors')) : [];
  const isOurs = (f: Json) => f.timer === TIMER || f.timer === TIMER_NUMBER;
  const others = factors.filter((f) => !isOurs(f));
  const triggers = objects(existing?.triggers).filter((t) => t.name !== PRESSURE_MONITOR);
  if (factors.some((f) => isOurs(f) && field(f, 'min_timeout') !== FACTOR.min_timeout)) {
    warnings.push(`overload_manager: the scaling of ${TIMER} is replaced by the one that drains need`);
  }
  if (others.length > 0) {
    warnings.push('overload_manager: the other timers that reduce_timeouts scales are scaled by a drain too');
  }
  if (triggers.length > 0) {
    warnings.push(
      `overload_manager: ${triggers.map((t) => String(t.name)).join(', ')} triggers reduce_timeouts, and so tells connections to leave`,
    );
  }
  const action = {
    ...existing,
    name: ACTION,
    triggers: [...triggers, TRIGGER],
    typed_config: {
      '@type': 'type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig',
      timer_scale_factors: [...others, FACTOR],
    },
  };
  return [...actions.filter((a) => a.name !== ACTION), withoutCamel(action)];
}

function withoutCamel(action: Json): Json {
  const { typedConfig: _, ...rest } = action;
  return rest;
}

function shorter(interval: unknown): string {
  const seconds = typeof interval === 'string' ? Number.parseFloat(interval) : Number.NaN;
  return seconds > 0 && seconds <= REFRESH_S ? (interval as string) : `${REFRESH_S}s`;
}
