/** Ports of the app of a Pod; `load`: what drives its calls. */
export const APP_PORTS = { http: 8080, tcp: 8081, http2: 8082, grpc: 8083, control: 8084, load: 8090 } as const;
