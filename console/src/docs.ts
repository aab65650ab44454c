// /docs: the API, from its /openapi.json.
import SwaggerUI from 'swagger-ui-dist/swagger-ui-es-bundle.js'
import 'swagger-ui-dist/swagger-ui.css'

SwaggerUI({ dom_id: '#app', url: '/openapi.json', validatorUrl: null })
