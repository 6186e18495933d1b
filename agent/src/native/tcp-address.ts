/** `0100007F:59D8`: words of four bytes in the machine's order (little-endian on all that Envoy runs on), port in hex. */
export function addressText(column: string): string {
  const [host = '', port = ''] = column.split(':');
  const bytes = Buffer.from(host, 'hex');
  if (bytes.length % 4 === 0) bytes.swap32();
  return `${bytes.length === 16 ? ipv6Text(bytes) : bytes.join('.')}:${Number.parseInt(port, 16)}`;
}

/** 16 bytes in the network's order as `[::1]`. */
export function ipv6Text(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  // URL has the one short spelling of an IPv6 address.
  return new URL(`tcp://[${groups.join(':')}]`).hostname;
}
