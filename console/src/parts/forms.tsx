// What is typed and chosen.
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useId, useRef, useState } from 'preact/hooks'

interface Labels {
  label: string
  hint?: string
}

// What is typed or chosen in, below its label. `children` is given its attributes.
function Labelled(props: Labels & { children: (attributes: { id: string; 'aria-describedby'?: string }) => JSX.Element }) {
  const id = useId()
  const described = props.hint ? `${id}-hint` : undefined
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.children({ id, 'aria-describedby': described })}
      {props.hint && (
        <small id={described} class="hint">
          {props.hint}
        </small>
      )}
    </div>
  )
}

export function Field({ label, hint, ...input }: Labels & JSX.InputHTMLAttributes<HTMLInputElement>) {
  return <Labelled {...{ label, hint }}>{(attributes) => <input {...attributes} {...input} />}</Labelled>
}

export function TextArea({ label, hint, ...input }: Labels & JSX.TextareaHTMLAttributes<HTMLTextAreaElement>) {
  return (
    <Labelled {...{ label, hint }}>
      {(attributes) => <textarea spellcheck={false} {...attributes} {...input} />}
    </Labelled>
  )
}

export function Select(props: {
  label: string
  value: string
  options: [string, string][]
  onChange: (value: string) => void
}) {
  return (
    <Labelled label={props.label}>
      {(attributes) => (
        <select {...attributes} value={props.value} onChange={(e) => props.onChange(e.currentTarget.value)}>
          {props.options.map(([value, text]) => (
            <option value={value}>{text}</option>
          ))}
        </select>
      )}
    </Labelled>
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
