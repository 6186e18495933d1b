/** This agent's own version, as said in `hello`; the release script keeps it equal to package.json. */
export const AGENT_VERSION = '0.1.0';
