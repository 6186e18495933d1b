import { field, isObject, type Json, objects, type PresetEnvironment, withField } from './environment.ts';

export const PRESSURE_MONITOR = 'envoy.resource_monitors.injected_resource';
const ACTION = 'envoy.overload_actions.reduce_timeouts';
const TIMER = 'HTTP_DOWNSTREAM_CONNECTION_MAX';

/** `scaled`: the pressure between 0.1 and 1.0 is an age cut-off (envoy-facts, the lever to build on). */
const TRIGGER = { name: PRESSURE_MONITOR, scaled: { scaling_threshold: 0.1, saturation_threshold: 1.0 } };
const FACTOR = { timer: TIMER, min_timeout: '0.001s' };

/** The overload manager that turns the epoch's pressure file into "leave" for the connections older than a cut-off. */
export function withPressure(bootstrap: Json, environment: PresetEnvironment, warnings: string[]): Json {
  const found = field(bootstrap, 'overload_manager');
  const manager = isObject(found) ? found : {};
  const monitors = objects(field(manager, 'resource_monitors'));
  const actions = objects(manager.actions);
  const monitor = {
    name: PRESSURE_MONITOR,
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig',
      filename: environment.pressureFile,
    },
  };
  if (
    monitors.some(
      (m) => m.name === PRESSURE_MONITOR && !JSON.stringify(m).includes(JSON.stringify(environment.pressureFile)),
    )
  ) {
    warnings.push('overload_manager: the injected_resource monitor is replaced by the one that drains need');
  }
  return withField(bootstrap, 'overload_manager', {
    // Envoy's default is 1 s; a drain order shall be felt at once. A user's own interval is kept when it is shorter.
    ...withField(manager, 'refresh_interval', shorter(field(manager, 'refresh_interval'))),
    resource_monitors: [...monitors.filter((m) => m.name !== PRESSURE_MONITOR), monitor],
    actions: withAction(actions, warnings),
  });
}

function withAction(actions: Json[], warnings: string[]): Json[] {
  const existing = actions.find((a) => a.name === ACTION);
  const config = existing && field(existing, 'typed_config');
  const factors = isObject(config) ? objects(field(config, 'timer_scale_factors')) : [];
  if (factors.some((f) => f.timer === TIMER && JSON.stringify(f) !== JSON.stringify(FACTOR))) {
    warnings.push(`overload_manager: the user's scaling of ${TIMER} is replaced by the one that drains need`);
  }
  const others = factors.filter((f) => f.timer !== TIMER);
  if (others.length > 0) {
    warnings.push('overload_manager: the timers that reduce_timeouts scales are scaled by a drain too');
  }
  const triggers = objects(existing?.triggers).filter((t) => t.name !== PRESSURE_MONITOR);
  const action = {
    name: ACTION,
    triggers: [...triggers, TRIGGER],
    typed_config: {
      '@type': 'type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig',
      timer_scale_factors: [...others, FACTOR],
    },
  };
  return [...actions.filter((a) => a.name !== ACTION), action];
}

function shorter(interval: unknown): string {
  const seconds = typeof interval === 'string' ? Number.parseFloat(interval) : Number.NaN;
  return seconds > 0 && seconds <= 0.1 ? (interval as string) : '0.1s';
}
