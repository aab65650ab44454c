// The small parts that all pages are made of.
import { signal } from '@preact/signals'
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useId, useRef, useState } from 'preact/hooks'
import { get } from '../api/client'

export function Pill({ status }: { status: string }) {
  return <span class={`pill pill-${status}`}>{status}</span>
}

export function Card(props: { title?: string; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section class="card">
      {(props.title || props.aside) && (
        <header class="card-head">
          {props.title && <h2>{props.title}</h2>}
          {props.aside}
        </header>
      )}
      {props.children}
    </section>
  )
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>
}

export function Stat({ label, value, hint }: { label: string; value: ComponentChildren; hint?: string }) {
  return (
    <div class="stat" title={hint}>
      <span class="stat-label">{label}</span>
      <span class="stat-value">{value}</span>
    </div>
  )
}

export function Table(props: { head: string[]; label: string; children: ComponentChildren }) {
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label={props.label}>
      <table>
        <thead>
          <tr>
            {props.head.map((name) => (
              <th scope="col">{name || <span class="sr">Actions</span>}</th>
            ))}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  )
}

type FieldProps = { label: string; hint?: string } & JSX.InputHTMLAttributes<HTMLInputElement>

export function Field({ label, hint, ...input }: FieldProps) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input id={id} aria-describedby={hint ? `${id}-hint` : undefined} {...input} />
      {hint && (
        <small id={`${id}-hint`} class="hint">
          {hint}
        </small>
      )}
    </div>
  )
}

export function Select(props: {
  label: string
  value: string
  options: [string, string][]
  onChange: (value: string) => void
}) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      <select id={id} value={props.value} onChange={(e) => props.onChange(e.currentTarget.value)}>
        {props.options.map(([value, text]) => (
          <option value={value}>{text}</option>
        ))}
      </select>
    </div>
  )
}

export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren }) {
  const box = useRef<HTMLDialogElement>(null)
  const id = useId()
  useEffect(() => box.current?.showModal(), [])
  return (
    <dialog ref={box} aria-labelledby={id} onClose={props.onClose}>
      <header class="card-head">
        <h2 id={id}>{props.title}</h2>
        <button class="quiet" aria-label="Close" onClick={() => box.current?.close()}>
          ✕
        </button>
      </header>
      {props.children}
    </dialog>
  )
}

// A form in a dialog. `submit` gives what is typed to the API; what it throws is told here. A second
// click does nothing while the first one is under way.
export function FormDialog(props: {
  title: string
  verb: string
  onClose: () => void
  submit: (given: FormData) => Promise<unknown>
  children: ComponentChildren
}) {
  const [error, setError] = useState('')
  const [busy, setBusy] = useState(false)
  const submit = async (event: Event) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    try {
      await props.submit(new FormData(event.currentTarget as HTMLFormElement))
    } catch (failed) {
      setError((failed as Error).message)
      setBusy(false)
    }
  }
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <form onSubmit={submit}>
        {props.children}
        {error && (
          <p class="bad" role="alert">
            {error}
          </p>
        )}
        <footer class="buttons">
          <button type="button" onClick={props.onClose}>
            Cancel
          </button>
          <button class="primary" disabled={busy}>
            {props.verb}
          </button>
        </footer>
      </form>
    </Dialog>
  )
}

export const typed = (given: FormData, name: string) => String(given.get(name)).trim()

interface Question {
  title: string
  text: string
  verb: string
  typed?: string // must be typed before it is done
  run: () => Promise<unknown>
}

const question = signal<Question | null>(null)
export const confirm = (asked: Question) => (question.value = asked)

export function Confirmation() {
  const asked = question.value
  if (!asked) return null
  return <Asked key={asked.title} {...asked} />
}

function Asked(asked: Question) {
  const [typed, setTyped] = useState('')
  const done = () => (question.value = null)
  return (
    <Dialog title={asked.title} onClose={done}>
      <p>{asked.text}</p>
      {asked.typed && (
        <Field
          label={`Type ${asked.typed} to go on`}
          value={typed}
          autocomplete="off"
          onInput={(e) => setTyped(e.currentTarget.value)}
        />
      )}
      <footer class="buttons">
        <button onClick={done}>Cancel</button>
        <button
          class="danger"
          disabled={asked.typed !== undefined && typed !== asked.typed}
          onClick={() => act(asked.verb, asked.run).then(done)}
        >
          {asked.verb}
        </button>
      </footer>
    </Dialog>
  )
}

interface Notice {
  text: string
  bad: boolean
}

const notice = signal<Notice | null>(null)
let fades: ReturnType<typeof setTimeout> | undefined

export function say(text: string, bad = false) {
  notice.value = { text, bad }
  clearTimeout(fades)
  fades = setTimeout(() => (notice.value = null), bad ? 9000 : 4000)
}

export function Notices() {
  const told = notice.value
  return (
    <div class="notices" role="status">
      {told && <p class={told.bad ? 'notice bad' : 'notice'}>{told.text}</p>}
    </div>
  )
}

// Do something for the user, and say how it went. Resolves to whether it went well.
export async function act(what: string, run: () => Promise<unknown>): Promise<boolean> {
  try {
    await run()
    say(`${what}: done.`)
    return true
  } catch (failed) {
    say((failed as Error).message, true)
    return false
  }
}

// A value of the API: loaded when the page is shown, again every `eachS` seconds, and on demand.
export function useGet<T>(path: string | null, eachS?: number) {
  const [value, setValue] = useState<T | null>(null)
  const [error, setError] = useState<string | null>(null)
  const [turn, setTurn] = useState(0)
  useEffect(() => {
    if (path === null) return
    let current = true
    const load = () =>
      get<T>(path).then(
        (found) => current && (setValue(found), setError(null)),
        (failed: Error) => current && setError(failed.message),
      )
    load()
    const timer = eachS ? setInterval(load, eachS * 1000) : undefined
    return () => {
      current = false
      clearInterval(timer)
    }
  }, [path, eachS, turn])
  return { value, error, reload: () => setTurn((n) => n + 1) }
}

const TOGETHER_MS = 50 // what comes within is shown at once

// What a stream of server-sent events tells, each thing once by its id: the latest `most`.
export function useStream<T extends { id: string }>(path: string, most = Infinity): T[] {
  const [all, setAll] = useState<T[]>([])
  useEffect(() => {
    const source = new EventSource(path)
    let batch: T[] = []
    const show = () => {
      const fresh = batch
      batch = []
      setAll((known) => {
        const ids = new Set(known.map((each) => each.id))
        return [...known, ...fresh.filter((each) => !ids.has(each.id))].slice(-most)
      })
    }
    source.onmessage = ({ data }) => {
      if (data === '[DONE]') return source.close()
      if (!batch.length) setTimeout(show, TOGETHER_MS)
      batch.push(JSON.parse(data))
    }
    return () => source.close()
  }, [path])
  return all
}

export function Loading({ error }: { error: string | null }) {
  return error ? <p class="empty bad">{error}</p> : <p class="empty">Loading …</p>
}
