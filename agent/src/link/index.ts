export { type AgentLink, createLink, type LinkOptions, type LinkState } from './link.ts';
