export { type ControlHandlers, type ControlServer, createControlServer } from './control.ts';
export { type AgentSnapshot, agentMetrics } from './metrics.ts';
export { type Metric, renderMetrics } from './prometheus.ts';
export { type HandedStatusPort, openHandedStatusPort } from './status-handoff.ts';
export { createStatusPort, type Health, type StatusHandlers, type StatusPort } from './status-port.ts';
