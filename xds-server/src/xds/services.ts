import type {
  handleBidiStreamingCall,
  ServerDuplexStream,
  ServiceDefinition,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { decodeMessage } from '../resources/encode.ts';
import type { ResourceKind } from '../resources/types.ts';
import type { Mode } from './session.ts';

/** What the two request messages have in common once decoded; field names as in the .proto files. */
export type ProtoRequest = Record<string, unknown>;
/** Bytes both ways: a stream that is another controller's is passed on as it is. */
export type XdsCall = ServerDuplexStream<Buffer, Buffer>;
export type StreamHandler = handleBidiStreamingCall<Buffer, Buffer>;

interface ServiceSpec {
  readonly service: string;
  readonly stream: string;
  readonly delta: string;
  /** undefined: ADS, all kinds. */
  readonly kind?: ResourceKind;
}

export const SERVICES: readonly ServiceSpec[] = [
  {
    service: 'envoy.service.discovery.v3.AggregatedDiscoveryService',
    stream: 'StreamAggregatedResources',
    delta: 'DeltaAggregatedResources',
  },
  single('cluster.v3.ClusterDiscoveryService', 'Clusters', 'cds'),
  single('endpoint.v3.EndpointDiscoveryService', 'Endpoints', 'eds'),
  single('secret.v3.SecretDiscoveryService', 'Secrets', 'sds'),
  single('listener.v3.ListenerDiscoveryService', 'Listeners', 'lds'),
  single('route.v3.RouteDiscoveryService', 'Routes', 'rds'),
  single('extension.v3.ExtensionConfigDiscoveryService', 'ExtensionConfigs', 'ecds'),
  single('runtime.v3.RuntimeDiscoveryService', 'Runtime', 'rtds'),
];

function single(name: string, what: string, kind: ResourceKind): ServiceSpec {
  return { service: `envoy.service.${name}`, stream: `Stream${what}`, delta: `Delta${what}`, kind };
}

const REQUEST: Readonly<Record<Mode, string>> = {
  sotw: 'envoy.service.discovery.v3.DiscoveryRequest',
  delta: 'envoy.service.discovery.v3.DeltaDiscoveryRequest',
};

/** Throws for bytes that are no such message. */
export function decodeRequest(mode: Mode, bytes: Buffer): ProtoRequest {
  return decodeMessage(REQUEST[mode], bytes);
}

/** Definition and handlers of one service for @grpc/grpc-js. Messages are bytes both ways: see stream.ts and wire.ts. */
export function serviceOf(
  spec: ServiceSpec,
  handler: (mode: Mode, kind: ResourceKind | undefined) => StreamHandler,
): [ServiceDefinition, UntypedServiceImplementation] {
  const method = (name: string) => ({
    path: `/${spec.service}/${name}`,
    requestStream: true,
    responseStream: true,
    requestSerialize: (bytes: Buffer) => bytes,
    requestDeserialize: (bytes: Buffer) => bytes,
    responseSerialize: (bytes: Buffer) => bytes,
    responseDeserialize: (bytes: Buffer) => bytes,
  });
  return [
    { [spec.stream]: method(spec.stream), [spec.delta]: method(spec.delta) } as ServiceDefinition,
    { [spec.stream]: handler('sotw', spec.kind), [spec.delta]: handler('delta', spec.kind) },
  ];
}
