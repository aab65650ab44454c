// The small parts that all pages are made of.
import type { ComponentChildren } from 'preact'
import { Link } from 'wouter-preact'

// `under`: the page that this one belongs to, its path and its name.
export function PageHead(props: {
  title: ComponentChildren
  under?: [string, string]
  subtitle?: string
  children?: ComponentChildren
}) {
  return (
    <header class="page-head">
      <div>
        {props.under && (
          <p class="crumbs">
            <Link href={props.under[0]}>{props.under[1]}</Link>
          </p>
        )}
        <h1>{props.title}</h1>
        {props.subtitle && <p class="muted">{props.subtitle}</p>}
      </div>
      {props.children}
    </header>
  )
}

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

export function Loading({ error }: { error: string | null }) {
  return error ? <p class="empty bad">{error}</p> : <p class="empty">Loading …</p>
}
