import type { Server, ServerResponse } from 'node:http';
import { type SluiceError, toSluiceError } from '@sluice/contract';

/** No request of ours takes long to arrive; a connection that only sits there is an Envoy's, between two reports. */
export const SERVER_TIMEOUTS = {
  headersTimeout: 5_000,
  requestTimeout: 15_000,
  keepAliveTimeout: 300_000,
  connectionsCheckingInterval: 5_000,
} as const;

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

/** Answers with the error. A body that was refused is not read on: the connection is closed. */
export function sendError(response: ServerResponse, thrown: unknown): void {
  const error = toSluiceError(thrown);
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  if (error.code === 'TOO_LARGE') {
    response.setHeader('connection', 'close');
    response.on('finish', () => response.req.destroy());
  }
  sendJson(response, httpStatus(error), error.toJSON());
}

function httpStatus(error: SluiceError): number {
  switch (error.code) {
    case 'INPUT_INVALID':
    case 'CONFIG_INVALID':
    case 'REPORT_INVALID':
      return 400;
    case 'PROXY_UNKNOWN':
    case 'UPGRADE_UNKNOWN':
      return 404;
    case 'UPGRADE_CONFLICT':
    case 'PHASE_REFUSED':
    case 'RESET_PROTECTED':
    case 'SLOT_TAKEN':
      return 409;
    case 'TOO_LARGE':
      return 413;
    case 'TIMEOUT':
      return 504;
    case 'CONTROLLER_AWAY':
      return 503;
    default:
      return error.code.startsWith('PREFLIGHT_') ? 422 : 500;
  }
}

/** Ends every connection too: nobody may hold up the end of the agent. */
export function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
