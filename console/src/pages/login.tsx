import { useState } from 'preact/hooks'
import { logIn } from '../api/client'
import { Field } from '../parts/forms'

export function Login() {
  const [key, setKey] = useState('')
  const [error, setError] = useState('')
  const [busy, setBusy] = useState(false)
  const submit = async (event: Event) => {
    event.preventDefault()
    setBusy(true)
    try {
      await logIn(key.trim())
    } catch (failed) {
      setError((failed as Error).message)
      setBusy(false)
    }
  }
  return (
    <main class="login">
      <form class="card" onSubmit={submit}>
        <h1 class="brand">
          <img src="/favicon.svg" alt="" width="32" height="32" />
          Loraplex
        </h1>
        <Field
          label="API key"
          type="password"
          autocomplete="current-password"
          required
          value={key}
          onInput={(e) => setKey(e.currentTarget.value)}
          hint="loraplex up prints it; it is also in ~/.loraplex/api-key. It stays in a cookie that scripts can't read."
        />
        {error && (
          <p class="bad" role="alert">
            {error}
          </p>
        )}
        <button class="primary" disabled={busy || !key.trim()}>
          Log in
        </button>
      </form>
    </main>
  )
}
