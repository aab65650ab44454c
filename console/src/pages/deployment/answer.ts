// One streamed answer of the playground: what has come, and how long it took.
import { send } from '../../api/client'
import { read } from '../../api/sse'

export interface Answer {
  text: string
  note: string // what the server says while nothing comes: the queue, the cold start
  error: string
  asked: number // ms; 0: not yet
  first: number
  latest: number
  done: boolean
  promptTokens: number
  tokens: number
}

export const NOTHING: Answer = {
  text: '',
  note: '',
  error: '',
  asked: 0,
  first: 0,
  latest: 0,
  done: false,
  promptTokens: 0,
  tokens: 0,
}

export const ttft = (answer: Answer) =>
  answer.first ? (answer.first - answer.asked) / 1000 : null

export function tokensPerS(answer: Answer): number | null {
  const seconds = (answer.latest - answer.first) / 1000
  return answer.tokens > 1 && seconds > 0 ? (answer.tokens - 1) / seconds : null
}

export async function ask(
  body: Record<string, unknown>,
  signal: AbortSignal,
  told: (answer: Answer) => void,
) {
  let answer: Answer = { ...NOTHING, asked: performance.now(), note: 'asked' }
  const tell = (change: Partial<Answer>) => told((answer = { ...answer, ...change }))
  tell({})
  try {
    const options = { stream: true, stream_options: { include_usage: true } }
    const response = await send('POST', '/v1/chat/completions', { ...body, ...options }, signal)
    for await (const { data, comment } of read(response)) {
      if (comment) tell({ note: comment })
      else if (data !== '[DONE]') tell(chunk(JSON.parse(data), answer))
    }
    tell({ done: true, note: '' })
  } catch (failed) {
    const text = signal.aborted ? 'Stopped.' : (failed as Error).message
    tell({ done: true, note: '', error: text })
  }
}

function chunk(data: any, answer: Answer): Partial<Answer> {
  if (data.error) throw new Error(data.error.message)
  const change: Partial<Answer> = {}
  const text: string = data.choices?.[0]?.delta?.content ?? ''
  if (text) {
    const now = performance.now()
    change.text = answer.text + text
    change.first = answer.first || now
    change.latest = now
    change.tokens = answer.tokens + 1 // until the usage says it
    change.note = ''
  }
  if (data.usage) {
    change.tokens = data.usage.completion_tokens
    change.promptTokens = data.usage.prompt_tokens
  }
  return change
}
