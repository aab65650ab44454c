// Ask the base model and adapters the same, side by side: they run in one batch.
import { useEffect, useRef, useState } from 'preact/hooks'
import { useSearchParams } from 'wouter-preact'
import { call, deploymentPath, session } from '../../api/client'
import type { Adapter, Deployment } from '../../api/types'
import { act } from '../../parts/asking'
import { Card } from '../../parts/basics'
import { Field, Select, TextArea } from '../../parts/forms'
import { useGet } from '../../parts/loading'
import { number, seconds } from '../../parts/format'
import { type Answer, ask, NOTHING, tokensPerS, ttft } from './answer'
import type { TabProps } from './page'
import { asked, Copied } from './snippets'

const MOST = 4 // side by side
const BASE: [string, string] = ['', 'base model']

export function Playground({ deployment, owned }: TabProps) {
  const [query] = useSearchParams()
  const [variants, setVariants] = useState<string[]>(['', query.get('adapter') ?? ''])
  const [prompt, setPrompt] = useState('Tell me about the moon.')
  const [system, setSystem] = useState('')
  const [most, setMost] = useState('120')
  const [temperature, setTemperature] = useState('0')
  const [topP, setTopP] = useState('1')
  const [seed, setSeed] = useState('')
  const [schema, setSchema] = useState('')
  const [problem, setProblem] = useState('')
  const [answers, setAnswers] = useState<Answer[]>([])
  const stop = useRef<AbortController | null>(null)
  useEffect(() => () => stop.current?.abort(), [])
  const known = useGet<{ data: Adapter[] }>('/api/v1/adapters').value?.data ?? []
  const mine = known.filter((each) => each.base_model === deployment.base_model && !each.archived)
  const options: [string, string][] = [BASE, ...mine.map((each): [string, string] => [each.ref, each.ref])]
  useEffect(() => {
    // The second column begins with an adapter, where there is one.
    if (mine[0] && variants.length === 2 && !variants[0] && !variants[1])
      setVariants(['', mine[0].ref])
  }, [known.length])

  const parameters: Record<string, unknown> = { max_tokens: Number(most), temperature: Number(temperature) }
  if (Number(topP) !== 1) parameters.top_p = Number(topP)
  if (seed) parameters.seed = Number(seed)
  const messages = [...(system ? [{ role: 'system', content: system }] : []), { role: 'user', content: prompt }]
  const format = parsed(schema)
  const busy = answers.some((answer) => !answer.done)

  const run = (event: Event) => {
    event.preventDefault()
    setProblem(format.wrong)
    if (format.wrong) return
    stop.current?.abort()
    const controller = (stop.current = new AbortController())
    setAnswers(variants.map(() => NOTHING))
    variants.forEach((adapter, index) => {
      const model = adapter ? `${deployment.name}:${adapter}` : deployment.name
      ask({ model, messages, ...asked(parameters, format.value) }, controller.signal, (answer) => {
        if (stop.current === controller)
          setAnswers((all) => all.map((each, i) => (i === index ? answer : each)))
      })
    })
  }

  // Whoever changes the columns has other questions: what was answered is of the former ones.
  const become = (next: string[]) => {
    stop.current?.abort()
    setAnswers([])
    setVariants(next)
  }
  const choose = (index: number, adapter: string) =>
    become(variants.map((each, i) => (i === index ? adapter : each)))
  return (
    <div class="playground">
      <Card title="Ask">
        <form onSubmit={run} onInvalidCapture={unfold}>
          <TextArea label="Prompt" spellcheck rows={3} required value={prompt} onInput={(e) => setPrompt(e.currentTarget.value)} />
          <details>
            <summary>Parameters</summary>
            <div class="fields">
              <Field label="Most tokens" type="number" min="1" max="32768" required value={most} onInput={(e) => setMost(e.currentTarget.value)} />
              <Field label="Temperature" type="number" min="0" max="2" step="any" required value={temperature} onInput={(e) => setTemperature(e.currentTarget.value)} />
              <Field label="Top p" type="number" min="0.01" max="1" step="any" required value={topP} onInput={(e) => setTopP(e.currentTarget.value)} />
              <Field label="Seed" type="number" min="0" value={seed} onInput={(e) => setSeed(e.currentTarget.value)} />
            </div>
            <Field label="System prompt" value={system} onInput={(e) => setSystem(e.currentTarget.value)} />
            <TextArea label="JSON schema of the answer" rows={3} class="code" placeholder='{"type": "object", "properties": …}' value={schema} onInput={(e) => setSchema(e.currentTarget.value)} />
          </details>
          {problem && (
            <p class="bad" role="alert">
              {problem}
            </p>
          )}
          <footer class="buttons">
            {variants.length < MOST && (
              <button type="button" onClick={() => become([...variants, ''])}>
                Add a variant
              </button>
            )}
            {busy && (
              <button type="button" onClick={() => stop.current?.abort()}>
                Stop
              </button>
            )}
            {owned && session.value?.dev && <Kill deployment={deployment} />}
            <button class="primary" disabled={busy}>
              Send
            </button>
          </footer>
        </form>
      </Card>
      <div class="variants">
        {variants.map((adapter, index) => (
          <section class="card variant" aria-label={`Variant ${index + 1}`}>
            <div class="row">
              <Select label={`Variant ${index + 1}`} value={adapter} options={options} onChange={(value) => choose(index, value)} />
              {variants.length > 1 && (
                <button class="quiet" aria-label={`Remove variant ${index + 1}`} onClick={() => become(variants.filter((_, i) => i !== index))}>
                  ✕
                </button>
              )}
            </div>
            <Shown answer={answers[index] ?? NOTHING} />
          </section>
        ))}
      </div>
      <Card title="The same from your code">
        <Copied name={deployment.name} adapter={variants[variants.length - 1]!} schema={format.value} {...{ messages, parameters }} />
      </Card>
    </div>
  )
}

// What is wrong may be folded away.
const unfold = (event: Event) => (event.target as Element).closest('details')?.setAttribute('open', '')

function parsed(schema: string): { value?: unknown; wrong: string } {
  if (!schema.trim()) return { wrong: '' }
  try {
    return { value: JSON.parse(schema), wrong: '' }
  } catch (failed) {
    return { wrong: `The schema is no JSON: ${(failed as Error).message}` }
  }
}

function Shown({ answer }: { answer: Answer }) {
  const waits = answer.asked > 0 && !answer.first && !answer.done
  return (
    <>
      <p class="answer" aria-live="off">
        {answer.text}
        {answer.asked > 0 && !answer.done && <span class="caret" aria-hidden="true" />}
      </p>
      {waits && <Clock note={answer.note} asked={answer.asked} />}
      {answer.error && <p class="bad">{answer.error}</p>}
      <dl class="measures">
        <div>
          <dt>First token</dt>
          <dd class="ttft">{seconds(ttft(answer))}</dd>
        </div>
        <div>
          <dt>Tokens/s</dt>
          <dd>{number(tokensPerS(answer))}</dd>
        </div>
        <div>
          <dt>Tokens</dt>
          <dd>
            {answer.promptTokens ? `${answer.promptTokens} + ` : ''}
            {answer.tokens}
          </dd>
        </div>
      </dl>
    </>
  )
}

// What is waited for, and since when.
function Clock({ note, asked }: { note: string; asked: number }) {
  const [now, setNow] = useState(performance.now())
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 100)
    return () => clearInterval(timer)
  }, [])
  return (
    <p class="clock">
      <b>{((now - asked) / 1000).toFixed(1)} s</b> {note}
    </p>
  )
}

function Kill({ deployment }: { deployment: Deployment }) {
  const living = deployment.replicas.filter((each) => each.phase === 'ready' || each.phase === 'draining')
  const victim = [...living].sort((a, b) => b.running - a.running)[0]
  const kill = () => call('POST', deploymentPath(deployment.name, `/replicas/${victim!.id}/kill`))
  return (
    <button type="button" class="danger" disabled={!victim} title="Development only: see its sentence finish at another replica" onClick={() => act('Kill the replica', kill)}>
      Kill the replica
    </button>
  )
}
