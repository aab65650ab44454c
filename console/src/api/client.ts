// Calls of the API. The session's cookie goes with them; a lost session shows the login.
import { signal } from '@preact/signals'
import type { Deployment, Session } from './types'

export const session = signal<Session | null | undefined>(undefined) // undefined: not known yet

export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message)
  }
}

export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await send(method, path, body)
  return (response.status === 204 ? undefined : await response.json()) as T
}

export async function send(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<Response> {
  const headers: Record<string, string> = { 'x-loraplex-console': '1' }
  const form = body instanceof FormData // the browser says how it is encoded
  if (body !== undefined && !form) headers['content-type'] = 'application/json'
  const sent = body === undefined || form ? body : JSON.stringify(body)
  let response: Response
  try {
    response = await fetch(path, { method, headers, body: sent as BodyInit | undefined, signal })
  } catch (failed) {
    if (signal?.aborted) throw failed
    throw new ApiError(0, 'The API does not answer. It is tried again.')
  }
  if (response.ok) return response
  const error = new ApiError(response.status, await errorText(response))
  if (response.status === 401 && session.value) session.value = null
  throw error
}

export const get = <T>(path: string) => call<T>('GET', path)

async function errorText(response: Response): Promise<string> {
  try {
    const body = await response.json()
    return body.detail ?? body.error?.message ?? `HTTP ${response.status}`
  } catch {
    return `HTTP ${response.status}`
  }
}

export async function logIn(key: string) {
  session.value = await call<Session>('POST', '/console/session', { key })
}

export async function logOut() {
  await call('DELETE', '/console/session')
  session.value = null
}

export async function findSession() {
  try {
    session.value = await get<Session | null>('/console/session')
  } catch (failed) {
    if (failed instanceof ApiError && failed.status >= 500) setTimeout(findSession, 1000)
    else if (failed instanceof ApiError && failed.status === 0) setTimeout(findSession, 1000)
    else session.value = null
  }
}

// What others share is used, not looked into.
export const owns = (deployment: Deployment) => !deployment.shared || !!session.value?.operator

export const may = (scope: string) =>
  !!session.value && (session.value.scopes.includes('admin') || session.value.scopes.includes(scope))

export const deploymentPath = (name: string, rest = '') =>
  `/api/v1/deployments/${encodeURIComponent(name)}${rest}`
