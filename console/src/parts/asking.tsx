// Before something is done, and after.
import { signal } from '@preact/signals'
import { useState } from 'preact/hooks'
import { Dialog, Field } from './forms'

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
