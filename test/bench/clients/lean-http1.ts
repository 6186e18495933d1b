import { ID_HEADER } from '../../harness/upstream/answers.ts';
import { LeanConnection } from './lean.ts';

/** One request at a time; the answers carry a length (the upstream gives one). */
export class LeanHttp1 extends LeanConnection {
  private id: string | undefined;
  private text = '';

  override get inFlight(): number {
    return this.id === undefined ? 0 : 1;
  }

  /** `delayMs`: how long the upstream takes. */
  override request(id: string, delayMs = 0): void {
    this.id = id;
    this.socket.write(`GET /echo?size=0&delay=${delayMs} HTTP/1.1\r\nhost: bench\r\n${ID_HEADER}: ${id}\r\n\r\n`);
  }

  protected override read(chunk: Buffer): void {
    this.text += chunk.toString('latin1');
    const end = this.text.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = this.text.slice(0, end).toLowerCase();
    const length = Number(/\r\ncontent-length: (\d+)/.exec(head)?.[1] ?? 0);
    if (this.text.length < end + 4 + length) return;
    const body = this.text.slice(end + 4, end + 4 + length);
    this.text = this.text.slice(end + 4 + length);
    const { id } = this;
    this.id = undefined;
    if (id === undefined) return;
    const right = head.startsWith('http/1.1 200 ') && body === `${id}\n`;
    if (/\r\nconnection: close/.test(head)) this.tell();
    this.events.answered(id, right ? undefined : `wrong answer: ${head.slice(0, 30)}`);
    if (this.leaving) this.socket.end();
  }

  protected override abandon(why: string): void {
    const { id } = this;
    this.id = undefined;
    if (id !== undefined) this.events.answered(id, `${why} before the answer`);
  }
}
