output "client_security_group_id" {
  description = "Its members reach the database, Valkey and the home folder."
  value       = aws_security_group.clients.id
}

output "valkey_security_group_id" {
  description = "For those that reach Valkey alone: the replicas."
  value       = aws_security_group.valkey.id
}

output "parameters" {
  description = "Names of the parameters: database-url, redis-url, secret-key, api-key, replicas."
  value       = { for name, each in aws_ssm_parameter.this : name => each.name }
}

output "parameter_arns" {
  value = { for name, each in aws_ssm_parameter.this : name => each.arn }
}

output "kms_key_arn" {
  value = aws_kms_key.this.arn
}

output "bucket" {
  value = aws_s3_bucket.this.bucket
}

output "home" {
  description = "The shared home folder: an EFS and its access point, which is the images' user."
  value = {
    file_system_id  = aws_efs_file_system.home.id
    arn             = aws_efs_file_system.home.arn
    access_point_id = aws_efs_access_point.home.id
    access_point    = aws_efs_access_point.home.arn
    mount_targets   = aws_efs_mount_target.home[*].id # wait for them
  }
}

output "database_id" {
  value = aws_db_instance.this.identifier
}

output "valkey_instance" {
  description = "null where Valkey is managed."
  value       = local.managed ? null : { id = one(aws_instance.valkey[*].id) }
}
