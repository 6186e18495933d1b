/** The controller's own version, as its metrics and log say it; the release script keeps it equal to package.json. */
export const CONTROLLER_VERSION = '0.1.0';
