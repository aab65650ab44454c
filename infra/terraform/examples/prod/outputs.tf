output "url" {
  description = "LORAPLEX_URL of the command line."
  value       = module.dns.url
}

output "api_key_command" {
  description = "Prints LORAPLEX_API_KEY, the first tenant's."
  value       = "aws ssm get-parameter --with-decryption --query Parameter.Value --output text --name ${module.data.parameters["api-key"]}"
}

output "settings" {
  description = "Of the scaler and the task workers."
  value       = local.settings
}

output "models_uri" {
  description = "Base models are kept here (LORAPLEX_MODEL_STORE): replicas fetch them from it."
  value       = "s3://${module.data.bucket}/models"
}

output "cluster" {
  value = module.control_plane.cluster
}

output "alarms" {
  value = module.observability.alarms
}
