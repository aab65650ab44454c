// A request as curl, for OpenAI's SDK and for LoRAX' client, to copy.
import { useState } from 'preact/hooks'
import { say } from '../../parts/asking'

interface Props {
  name: string
  adapter: string // "": the base model
  messages: Message[] // the last one is asked
  parameters: Record<string, unknown>
  schema?: unknown // of the answer
}

export interface Message {
  role: string
  content: string
}

const quoted = (text: string) => text.replaceAll("'", `'\\''`)

export const asked = (parameters: Props['parameters'], schema: unknown) =>
  schema ? { ...parameters, response_format: { type: 'json_schema', json_schema: { name: 'answer', schema } } } : parameters

export function snippets({ name, adapter, messages, parameters, schema }: Props): [string, string][] {
  const url = location.origin
  const model = adapter ? `${name}:${adapter}` : name
  const body = JSON.stringify({ model, stream: true, ...asked(parameters, schema), messages })
  const named = Object.entries(asked(parameters, schema))
    .map(([key, value]) => `, ${key}=${python(value)}`)
    .join('')
  const lorax = Object.entries(parameters)
    .filter(([key]) => ['temperature', 'top_p', 'seed'].includes(key))
    .map(([key, value]) => `, ${key}=${python(value)}`)
    .join('')
  const most = parameters.max_tokens ? `, max_new_tokens=${parameters.max_tokens}` : ''
  const format = schema ? `, response_format=${python({ type: 'json_object', schema })}` : ''
  const chosen = adapter ? `, adapter_id=${python(adapter)}` : ''
  return [
    [
      'curl',
      `curl -N ${url}/v1/chat/completions \\\n  -H "authorization: Bearer $LORAPLEX_API_KEY" \\\n` +
        `  -H 'content-type: application/json' \\\n  -d '${quoted(body)}'`,
    ],
    [
      'Python',
      `import os\nfrom openai import OpenAI\n\nclient = OpenAI(base_url="${url}/v1", api_key=os.environ["LORAPLEX_API_KEY"])\n` +
        `stream = client.chat.completions.create(\n    model=${python(model)}, stream=True${named},\n    messages=${python(messages)},\n)\n` +
        `for chunk in stream:\n    print(chunk.choices[0].delta.content or "", end="", flush=True)`,
    ],
    [
      'LoRAX',
      `import os\nfrom lorax import Client\n\nheaders = {"Authorization": "Bearer " + os.environ["LORAPLEX_API_KEY"]}\n` +
        `client = Client("${url}/deployments/${name}", headers=headers)\n` +
        `print(client.generate(${python(messages[messages.length - 1]!.content)}${chosen}${most}${lorax}${format}).generated_text)`,
    ],
  ]
}

function python(value: unknown): string {
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`
  if (typeof value === 'object')
    return `{${Object.entries(value as object).map(([k, v]) => `${JSON.stringify(k)}: ${python(v)}`).join(', ')}}`
  return JSON.stringify(value)
}

export function Copied(props: Props) {
  const [shown, setShown] = useState('curl')
  const all = snippets(props)
  const text = all.find(([name]) => name === shown)![1]
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => say('Copied.'),
      () => say('The browser does not let it be copied here.', true),
    )
  return (
    <div class="snippet">
      <div class="buttons">
        {all.map(([name]) => (
          <button class="quiet" aria-pressed={name === shown} onClick={() => setShown(name)}>
            {name}
          </button>
        ))}
        <button class="quiet" onClick={copy}>
          Copy
        </button>
      </div>
      <pre tabIndex={0}>
        <code>{text}</code>
      </pre>
    </div>
  )
}
