import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { type AgentMessage, type Hello, MAX_LINE_BYTES } from '@sluice/contract';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeAgent, verdict } from '../testing/fake-agent.ts';
import { readAgentMessage } from './messages.ts';
import { type AgentLink, LinkServer, type LinkServerOptions } from './server.ts';
import { tokenCheck } from './tokens.ts';

let server: Server;
let links: LinkServer;
let clock: number;
const agents: FakeAgent[] = [];
const heard: AgentMessage[] = [];
let connected: ((link: AgentLink) => void)[];
let gone: ((why: string) => void)[];
let taken: (() => void)[];

async function listen(more: Partial<LinkServerOptions> = {}): Promise<void> {
  server = createServer();
  links = new LinkServer(server, {
    checkToken: tokenCheck(undefined),
    now: () => clock,
    handlers: {
      connected: (link) => {
        for (const one of connected.splice(0)) one(link);
      },
      message: (_link, message) => {
        heard.push(message);
        for (const one of taken.splice(0)) one();
      },
      gone: (_link, why) => {
        for (const one of gone.splice(0)) one(why);
      },
    },
    ...more,
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
}

beforeEach(() => {
  clock = 1_000_000;
  connected = [];
  gone = [];
  taken = [];
  heard.length = 0;
});
afterEach(async () => {
  for (const agent of agents.splice(0)) agent.close();
  links.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const port = () => (server.address() as AddressInfo).port;
async function join(hello?: Partial<Hello>): Promise<FakeAgent> {
  const agent = await FakeAgent.connect(port(), hello);
  agents.push(agent);
  return agent;
}
async function raw(): Promise<FakeAgent> {
  const agent = await FakeAgent.raw(port());
  agents.push(agent);
  return agent;
}
const nextGone = () => new Promise<string>((resolve) => gone.push(resolve));

describe('LinkServer', () => {
  it('welcomes an agent with the version that both speak', async () => {
    await listen();
    const agent = await join({ v: 7 });
    expect(await agent.next('welcome')).toEqual({ type: 'welcome', v: 1 });
  });

  it('sends an agent on whose proxy belongs to another controller, at its hello and later', async () => {
    let owner: string | undefined = 'http://10.0.0.2:18080';
    await listen({ elsewhere: (proxy) => (proxy === 'edge' ? owner : undefined) });
    const early = await join();
    expect(await early.next('moved')).toEqual({ type: 'moved', url: owner });
    await early.ended;
    owner = undefined;
    const [agent, other] = [await join(), await join({ proxy: 'other' })];
    await Promise.all([agent.next('welcome'), other.next('welcome')]);
    links.moveAll();
    owner = 'http://10.0.0.3:18080';
    const why = nextGone();
    links.moveAll();
    expect(await agent.next('moved')).toEqual({ type: 'moved', url: owner });
    expect(await why).toContain('belongs to http://10.0.0.3:18080');
    expect(other.received).toEqual([]);
  });

  it('tells nobody where a proxy is without the right token', async () => {
    await listen({ checkToken: tokenCheck({ edge: 'edge-secret' }), elsewhere: () => 'http://10.0.0.2:18080' });
    const agent = await join({ identity: { token: 'guess' } });
    expect(await agent.next('refused')).toMatchObject({ code: 'SLUICE_IDENTITY_REFUSED' });
  });

  it.each([
    ['a version that is too old', { v: 0 }, 'SLUICE_PROTOCOL_UNSUPPORTED'],
    ['a wrong token', { identity: { token: 'guess' } }, 'SLUICE_IDENTITY_REFUSED'],
    ['no token', { identity: {} }, 'SLUICE_IDENTITY_REFUSED'],
    ['the token of another proxy', { proxy: 'other', identity: { token: 'edge-secret' } }, 'SLUICE_IDENTITY_REFUSED'],
    ['a hello without a proxy', { proxy: '' }, 'SLUICE_INPUT_INVALID'],
  ])('refuses %s and ends the link', async (_, hello, code) => {
    await listen({ checkToken: tokenCheck({ edge: 'edge-secret', '*': 'secret' }) });
    const agent = await join(hello);
    expect(await agent.next('refused')).toMatchObject({ code });
    await agent.ended;
  });

  it('lets in who has the token of the proxy', async () => {
    await listen({ checkToken: tokenCheck({ edge: 'edge-secret', '*': 'secret' }) });
    await (await join({ identity: { token: 'edge-secret' } })).next('welcome');
    await (await join({ proxy: 'other', identity: { token: 'secret' } })).next('welcome');
  });

  it('refuses a second agent that claims a slot, and the first goes on', async () => {
    await listen();
    const first = await join();
    await first.next('welcome');
    const second = await join();
    expect(await second.next('refused')).toMatchObject({ code: 'SLUICE_SLOT_TAKEN' });
    await second.ended;
    await (await join({ slot: '2' })).next('welcome');
    await (await join({ proxy: 'other' })).next('welcome');
    const ended = nextGone();
    first.close();
    await ended;
    await (await join()).next('welcome');
  });

  it('gives the slot of a silent agent to the next that claims it', async () => {
    await listen({ pingMs: 10_000 });
    const first = await join();
    await first.next('welcome');
    clock += 15_001;
    const second = await join();
    await second.next('welcome');
    await first.ended;
  });

  it('pings, and ends a link that stays silent', async () => {
    await listen({ pingMs: 20, now: Date.now });
    // Asked for before there is one: on a busy machine it is gone before the test has heard the ping.
    const why = nextGone();
    const agent = await join();
    await agent.next('welcome');
    await agent.next('ping');
    expect(await why).toMatch(/silent for/);
    await agent.ended;
  });

  it('does not wait for ever for a hello', async () => {
    await listen({ helloMs: 20 });
    const agent = await raw();
    expect(await agent.next('refused')).toMatchObject({ code: 'SLUICE_TIMEOUT' });
    await agent.ended;
  });

  it.each([
    ['something else first', '{"type":"ping"}\n', 'SLUICE_INPUT_INVALID'],
    ['what is no JSON', 'GET / HTTP/1.1\r\n\r\n', 'SLUICE_INPUT_INVALID'],
    ['a hello of the wrong form', '{"type":"hello","v":"one"}\n', 'SLUICE_INPUT_INVALID'],
    ['a line past its bound', `{"a":"${'x'.repeat(MAX_LINE_BYTES)}`, 'SLUICE_TOO_LARGE'],
  ])('refuses %s', async (_, bytes, code) => {
    await listen();
    const agent = await raw();
    agent.write(bytes);
    expect(await agent.next('refused')).toMatchObject({ code });
    await agent.ended;
  });

  it('ignores a message of the wrong form, one of a newer agent, and goes on', async () => {
    await listen();
    const agent = await join();
    await agent.next('welcome');
    agent.write('{"type":"verdict","upgradeId":"u","epoch":-1,"verdict":{}}\n');
    agent.write('{"type":"weather","sunny":true}\n');
    agent.write('{"type":7}\n');
    const understood = new Promise<void>((resolve) => taken.push(resolve));
    agent.send({ type: 'epochs', epochs: [] });
    await understood;
    agent.write('not json\n');
    expect(await agent.next('refused')).toMatchObject({ code: 'SLUICE_INPUT_INVALID' });
    expect(heard).toEqual([{ type: 'epochs', epochs: [] }]);
  });

  it('answers a request for another protocol with 400', async () => {
    await listen();
    const socket = connectTcp(port(), '127.0.0.1');
    socket.write('GET /agent HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    const answer = await new Promise<string>((resolve) => socket.once('data', (chunk) => resolve(String(chunk))));
    expect(answer).toMatch(/^HTTP\/1\.1 400/);
    socket.destroy();
  });

  it('ends an agent that does not read, instead of keeping what it is sent', async () => {
    await listen();
    const link = new Promise<AgentLink>((resolve) => connected.push(resolve));
    const agent = await join();
    await agent.next('welcome');
    agent.pause();
    const ended = nextGone();
    const to = await link;
    const target = { to: 'x'.repeat(1_000_000) };
    for (let n = 0; n < 100; n += 1) if (!to.send({ type: 'preflight', upgradeId: 'u', target })) break;
    expect(await ended).toMatch(/does not read/);
    expect(to.send({ type: 'ping' })).toBe(false);
  });
});

describe('readAgentMessage', () => {
  it('takes a verdict as the agent sends it', () => {
    const message = { type: 'verdict', upgradeId: 'u', epoch: 0, verdict: verdict(false) };
    expect(readAgentMessage(message)).toEqual(message);
  });
  it('names the field that is wrong', () => {
    const message = { type: 'reset', upgradeId: 'u', epoch: 0, at: 1, drained: -3, old: 0, cut: [] };
    expect(() => readAgentMessage(message)).toThrow(/message reset: drained/);
  });
});
